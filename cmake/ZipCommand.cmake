# Run by cmake -P: pack the package SOURCE into the executable zip file OUTPUT with PYTHON, by way of the folder STAGE.
# The compiled modules lie beside their sources, since a start that has to compile them takes several times as long. They
# are not checked against the sources, which cannot change in there; another version of Python takes the sources.
file(REMOVE_RECURSE ${STAGE})
file(COPY ${SOURCE} DESTINATION ${STAGE} PATTERN __pycache__ EXCLUDE PATTERN "*.pyc" EXCLUDE)
file(WRITE ${STAGE}/__main__.py "import sys\n\nfrom tide.cli import main\n\nsys.exit(main())\n")
execute_process(
    COMMAND ${PYTHON} -m compileall -q -b --invalidation-mode unchecked-hash -s ${STAGE} ${STAGE}/tide
    COMMAND_ERROR_IS_FATAL ANY)
execute_process(
    COMMAND ${PYTHON} -m zipapp ${STAGE} --output ${OUTPUT} --python "/usr/bin/python3" --compress
    COMMAND_ERROR_IS_FATAL ANY)
file(CHMOD ${OUTPUT} PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
