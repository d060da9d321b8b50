# Run by cmake -P: pack the package SOURCE into the executable zip file OUTPUT with PYTHON, by way of the folder STAGE.
file(REMOVE_RECURSE ${STAGE})
file(COPY ${SOURCE} DESTINATION ${STAGE} PATTERN __pycache__ EXCLUDE PATTERN "*.pyc" EXCLUDE)
file(WRITE ${STAGE}/__main__.py "import runpy\n\nrunpy.run_module(\"tide\", run_name=\"__main__\", alter_sys=True)\n")
execute_process(
    COMMAND ${PYTHON} -m zipapp ${STAGE} --output ${OUTPUT} --python "/usr/bin/env python3" --compress
    COMMAND_ERROR_IS_FATAL ANY)
file(CHMOD ${OUTPUT} PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
