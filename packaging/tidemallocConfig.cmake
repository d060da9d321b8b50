# find_package(tidemalloc) gives tidemalloc::tidemalloc (shared) and tidemalloc::static.
include(${CMAKE_CURRENT_LIST_DIR}/tidemallocTargets.cmake)
