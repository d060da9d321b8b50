# Target tide_command: build/tide, the Python package tools/tide in one executable file, and build/completions, what the
# shells need to complete its command line. build/tide runs like `python3 -m tide` inside tools/.

if(EXISTS ${PROJECT_SOURCE_DIR}/tools/tide/__main__.py)
    # The distribution's own Python first: it runs the command, and has the distribution's packages.
    find_program(TIDE_SYSTEM_PYTHON python3 PATHS /usr/bin NO_DEFAULT_PATH)
    find_program(TIDE_SYSTEM_PYTHON python3 REQUIRED)
    file(GLOB_RECURSE tide_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tools/tide/*)
    list(FILTER tide_sources EXCLUDE REGEX "/__pycache__/|\\.pyc$")
    add_custom_command(
        OUTPUT ${PROJECT_BINARY_DIR}/tide
        COMMAND ${CMAKE_COMMAND} -D PYTHON=${TIDE_SYSTEM_PYTHON} -D SOURCE=${PROJECT_SOURCE_DIR}/tools/tide
            -D STAGE=${PROJECT_BINARY_DIR}/tide.stage -D OUTPUT=${PROJECT_BINARY_DIR}/tide
            -P ${PROJECT_SOURCE_DIR}/cmake/ZipCommand.cmake
        DEPENDS ${tide_sources} ${PROJECT_SOURCE_DIR}/cmake/ZipCommand.cmake
        COMMENT "Packing the tide command"
        VERBATIM)
    set(tide_completions ${PROJECT_BINARY_DIR}/completions)
    add_custom_command(
        OUTPUT ${tide_completions}/bash/tide ${tide_completions}/zsh/_tide ${tide_completions}/fish/tide.fish
        COMMAND ${TIDE_SYSTEM_PYTHON} -B ${PROJECT_SOURCE_DIR}/completions/generate.py
            ${PROJECT_SOURCE_DIR}/tools ${tide_completions}
        DEPENDS ${tide_sources} ${PROJECT_SOURCE_DIR}/completions/generate.py
        COMMENT "Writing the shell completions"
        VERBATIM)
    add_custom_target(tide_command ALL DEPENDS ${PROJECT_BINARY_DIR}/tide ${tide_completions}/bash/tide)
    if(TARGET tidemalloc_count) # for `tide run --count` and `tide investigate`
        add_dependencies(tide_command tidemalloc_count)
    endif()
else()
    add_custom_target(tide_command)
endif()
