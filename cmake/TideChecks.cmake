# Tests of the source tree and of what was built, run by ctest beside those in tests/.
# The sanitizer builds only carry tests of tests/: these need the ordinary library.

if(NOT TIDE_SANITIZE AND CMAKE_BUILD_TYPE STREQUAL "Release")
    add_test(NAME check.layers COMMAND ${PROJECT_SOURCE_DIR}/scripts/check-layers.sh ${PROJECT_SOURCE_DIR}/src)
    add_test(NAME check.layers-catches COMMAND ${PROJECT_SOURCE_DIR}/scripts/check-layers-test.sh)
    add_test(NAME check.size COMMAND ${PROJECT_SOURCE_DIR}/scripts/check-size.sh $<TARGET_FILE:tidemalloc>)
    add_test(NAME check.size-catches COMMAND ${PROJECT_SOURCE_DIR}/scripts/check-size.sh $<TARGET_FILE:tidemalloc> 1)
    set_tests_properties(check.size-catches PROPERTIES WILL_FAIL ON)

    find_package(Python3 COMPONENTS Interpreter REQUIRED)
    add_test(NAME check.bench COMMAND ${Python3_EXECUTABLE} -m unittest discover -s ${PROJECT_SOURCE_DIR}/bench)

    add_test(NAME check.install
        COMMAND ${PROJECT_SOURCE_DIR}/tests/install/run.sh ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
    set_tests_properties(check.install PROPERTIES TIMEOUT 120)

    if(EXISTS ${PROJECT_SOURCE_DIR}/tests/programs/run.sh)
        add_test(NAME check.programs COMMAND ${PROJECT_SOURCE_DIR}/tests/programs/run.sh --quick
            WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
        set_tests_properties(check.programs PROPERTIES TIMEOUT 600 COST 1000 LABELS programs)
    endif()
endif()
