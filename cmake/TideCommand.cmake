# Target tide_command: build/tide, the Python package tools/tide in one executable file. It runs like `python3 -m tide`
# inside tools/.

if(EXISTS ${PROJECT_SOURCE_DIR}/tools/tide/__main__.py)
    find_program(TIDE_PYTHON python3 REQUIRED)
    file(GLOB_RECURSE tide_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tools/tide/*)
    list(FILTER tide_sources EXCLUDE REGEX "/__pycache__/|\\.pyc$")
    add_custom_command(
        OUTPUT ${PROJECT_BINARY_DIR}/tide
        COMMAND ${CMAKE_COMMAND} -D PYTHON=${TIDE_PYTHON} -D SOURCE=${PROJECT_SOURCE_DIR}/tools/tide
            -D STAGE=${PROJECT_BINARY_DIR}/tide.stage -D OUTPUT=${PROJECT_BINARY_DIR}/tide
            -P ${PROJECT_SOURCE_DIR}/cmake/ZipCommand.cmake
        DEPENDS ${tide_sources} ${PROJECT_SOURCE_DIR}/cmake/ZipCommand.cmake
        COMMENT "Packing the tide command"
        VERBATIM)
    add_custom_target(tide_command ALL DEPENDS ${PROJECT_BINARY_DIR}/tide)
else()
    add_custom_target(tide_command)
endif()
