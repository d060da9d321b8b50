# Installation. The prefix may be chosen when installing (`cmake --install build --prefix P`), so the pkg-config file is
# written then, not at configure time.
include(CMakePackageConfigHelpers)

install(TARGETS tidemalloc tidemalloc_secure tidemalloc_static EXPORT tidemallocTargets
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES include/tidemalloc.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
if(EXISTS ${PROJECT_SOURCE_DIR}/tools/tide/__main__.py)
    install(PROGRAMS ${PROJECT_BINARY_DIR}/tide DESTINATION ${CMAKE_INSTALL_BINDIR})
    install(TARGETS tidemalloc_count LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}) # not to be linked: no export
    # Where each shell looks below /usr and /usr/local.
    install(FILES ${tide_completions}/bash/tide DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
    install(FILES ${tide_completions}/zsh/_tide DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
    install(FILES ${tide_completions}/fish/tide.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
endif()
install(DIRECTORY contrib/ DESTINATION ${CMAKE_INSTALL_DATADIR}/tidemalloc/contrib)
foreach(section 1 3 7)
    file(GLOB pages CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/docs/man/*.${section})
    if(pages)
        install(FILES ${pages} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
    endif()
endforeach()

# For gdb: to be sourced by hand, and where a gdb of the same prefix looks when it loads the library (its real name, links followed).
install(FILES tools/gdb/tide.py DESTINATION ${CMAKE_INSTALL_DATADIR}/tidemalloc)
set(gdb_values "set(gdb_script \"${PROJECT_SOURCE_DIR}/tools/gdb/tide.py\")
set(gdb_folder \"${CMAKE_INSTALL_DATADIR}/gdb/auto-load\")
set(gdb_library_folder \"${CMAKE_INSTALL_LIBDIR}\")
set(gdb_library \"libtidemalloc.so.${PROJECT_VERSION}\")")
install(CODE "${gdb_values}")
install(CODE [[
    file(INSTALL ${gdb_script} RENAME ${gdb_library}-gdb.py
        DESTINATION "${CMAKE_INSTALL_PREFIX}/${gdb_folder}${CMAKE_INSTALL_PREFIX}/${gdb_library_folder}")]])

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/tidemalloc)
install(EXPORT tidemallocTargets NAMESPACE tidemalloc:: DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/package/tidemallocConfigVersion.cmake
    COMPATIBILITY SameMinorVersion)
install(FILES packaging/tidemallocConfig.cmake ${PROJECT_BINARY_DIR}/package/tidemallocConfigVersion.cmake
    DESTINATION ${package_dir})

set(pc_values "set(PROJECT_VERSION \"${PROJECT_VERSION}\")
set(CMAKE_INSTALL_LIBDIR \"${CMAKE_INSTALL_LIBDIR}\")
set(CMAKE_INSTALL_INCLUDEDIR \"${CMAKE_INSTALL_INCLUDEDIR}\")
set(pc_template \"${PROJECT_SOURCE_DIR}/packaging/tidemalloc.pc.in\")
set(pc_file \"${PROJECT_BINARY_DIR}/package/tidemalloc.pc\")")
install(CODE "${pc_values}")
install(CODE [[
    configure_file(${pc_template} ${pc_file} @ONLY)
    file(INSTALL ${pc_file} DESTINATION "${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_LIBDIR}/pkgconfig")]])
