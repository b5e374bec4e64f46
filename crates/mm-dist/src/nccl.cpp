// NCCL, for tensors on GPUs: the part of torch.distributed that libtorch's CUDA libraries have, and whose headers need
// those of CUDA and NCCL. `cargo xtask nccl` compiles this file to libmm_nccl.so, which nccl.rs opens where several
// processes train on GPUs. The rest of mm is compiled without CUDA.
//
// Objects and texts cross to shim.cpp as pointers: both are compiled against the same version of libtorch, which
// mm_nccl_torch_version tells.

#define USE_C10D_NCCL

#include <c10/cuda/CUDAFunctions.h>
#include <torch/csrc/cuda/nccl.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#include <torch/version.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>

namespace {

char *copied(const char *text) {
  char *copy = static_cast<char *>(std::malloc(std::strlen(text) + 1));
  if (copy) std::strcpy(copy, text);
  return copy;
}

std::string shown(uint64_t major, uint64_t minor, uint64_t patch) {
  return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
}

// The options of a process group have other fields in other versions of NCCL, whose headers libtorch and this file were
// compiled with.
void check_nccl_version() {
  const uint64_t found = torch::cuda::nccl::version();
  const auto part = [&](int shift) { return (found >> shift) & 0xffff; };
  const auto expected = shown(NCCL_MAJOR, NCCL_MINOR, NCCL_PATCH);
  const auto of_libtorch = shown(found >> 32, part(16), part(0));
  TORCH_CHECK(of_libtorch == expected, "libmm_nccl.so was compiled for NCCL ", expected, ", and libtorch for ",
              of_libtorch, "; build it again with `cargo xtask nccl` and the headers of that version");
}

c10d::Backend *connect(c10::intrusive_ptr<c10d::Store> store, int rank, int size, int64_t timeout_ms, int device,
                       const char *name) {
  check_nccl_version();
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = std::chrono::milliseconds(timeout_ms);
  options->group_name = name;
  for (int other = 0; other < size; other++) options->global_ranks_in_group.push_back(other);
  // Refuses where there is no GPU.
  auto nccl = c10::make_intrusive<c10d::ProcessGroupNCCL>(std::move(store), rank, size, std::move(options));
  c10::cuda::set_device(static_cast<c10::DeviceIndex>(device));
  return nccl.release();
}

} // namespace

extern "C" {

const char *mm_nccl_torch_version() { return TORCH_VERSION; }

// A backend of the group, with one reference that the caller owns, as this function owns that of `store`. Null with a text
// in `error`, from malloc, when it cannot be made. The ranks connect at their first operation.
c10d::Backend *mm_nccl_backend(c10d::Store *store, int rank, int size, int64_t timeout_ms, int device, const char *name,
                               char **error) {
  try {
    return connect(c10::intrusive_ptr<c10d::Store>::reclaim(store), rank, size, timeout_ms, device, name);
  } catch (const c10::Error &e) {
    *error = copied(e.what_without_backtrace());
  } catch (const std::exception &e) {
    *error = copied(e.what());
  } catch (...) {
    *error = copied("unknown C++ exception");
  }
  return nullptr;
}

} // extern "C"
