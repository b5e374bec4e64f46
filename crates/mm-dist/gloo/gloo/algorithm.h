// libtorch ships its gloo backend but not gloo's headers. These declarations are what ProcessGroupGloo.hpp names; nothing
// here is constructed, called or dereferenced by shim.cpp.
#pragma once
