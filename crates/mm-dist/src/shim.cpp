// What neither tch nor libtorch's C functions offer: torch.distributed's store, its gloo backend, and the reducer of
// DistributedDataParallel, which starts to average gradients while the backward pass still runs.
//
// Every function catches C++ exceptions and returns their text through `error`, which mm_dist_free frees.

#define USE_C10D_GLOO

#include <ATen/ATen.h>
#include <c10/util/Flags.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>

C10_DECLARE_int(caffe2_log_level);

namespace {

using Milliseconds = std::chrono::milliseconds;

struct StoreHandle {
  c10::intrusive_ptr<c10d::Store> store;
};

struct GroupHandle {
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;
  c10::intrusive_ptr<c10d::ProcessGroup> group;
};

char *copied(const char *text) {
  char *copy = static_cast<char *>(std::malloc(std::strlen(text) + 1));
  if (copy) std::strcpy(copy, text);
  return copy;
}

template <typename F> auto guarded(char **error, F &&body) -> decltype(body()) {
  try {
    return body();
  } catch (const c10::Error &e) {
    *error = copied(e.what_without_backtrace());
  } catch (const std::exception &e) {
    *error = copied(e.what());
  } catch (...) {
    *error = copied("unknown C++ exception");
  }
  return decltype(body())();
}

// Warnings of libtorch carry stack frames, and this crate's errors say who failed. TORCH_CPP_LOG_LEVEL brings them back.
void quiet_warnings() {
  if (!std::getenv("TORCH_CPP_LOG_LEVEL")) FLAGS_caffe2_log_level = std::max(FLAGS_caffe2_log_level, 2);
}

// libtorch's flight recorder adds a group at its first operation to a map of all groups without a lock (local.rs).
std::mutex first_operations;

std::vector<at::Tensor> tensors_of(at::Tensor *const *tensors, int64_t count) {
  std::vector<at::Tensor> all;
  all.reserve(count);
  for (int64_t i = 0; i < count; i++) all.push_back(*tensors[i]);
  return all;
}

// The sum of the ranks' tensors, whose gradients are summed as well.
struct SumOverRanks : torch::autograd::Function<SumOverRanks> {
  using Gloo = c10::intrusive_ptr<c10d::ProcessGroupGloo>;

  static at::Tensor reduced(const Gloo &gloo, const at::Tensor &own) {
    std::vector<at::Tensor> tensors{own.clone(at::MemoryFormat::Contiguous)};
    gloo->allreduce(tensors, c10d::AllreduceOptions())->wait();
    return tensors[0];
  }

  static at::Tensor forward(torch::autograd::AutogradContext *context, const at::Tensor &own, const Gloo &gloo) {
    context->saved_data["gloo"] = c10::IValue::make_capsule(gloo);
    return reduced(gloo, own);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                 torch::autograd::variable_list gradients) {
    const auto capsule = context->saved_data["gloo"].toCapsule();
    const auto gloo = Gloo::reclaim_copy(static_cast<c10d::ProcessGroupGloo *>(capsule.get()));
    return {reduced(gloo, gradients[0]), at::Tensor()};
  }
};

} // namespace

extern "C" {

void mm_dist_free(char *text) { std::free(text); }

StoreHandle *mm_dist_tcp_store(const char *host, uint16_t port, bool is_server, int64_t timeout_ms, char **error) {
  return guarded(error, [&]() -> StoreHandle * {
    quiet_warnings();
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = is_server;
    options.waitWorkers = false;
    options.timeout = Milliseconds(timeout_ms);
    auto store = c10::make_intrusive<c10d::TCPStore>(host, options);
    store->setTimeout(Milliseconds(timeout_ms));
    return new StoreHandle{store};
  });
}

StoreHandle *mm_dist_prefix_store(const StoreHandle *store, const char *prefix, char **error) {
  return guarded(error, [&]() -> StoreHandle * {
    return new StoreHandle{c10::make_intrusive<c10d::PrefixStore>(prefix, store->store)};
  });
}

void mm_dist_store_free(StoreHandle *store) { delete store; }

void mm_dist_store_set(const StoreHandle *store, const char *key, const uint8_t *value, size_t size, char **error) {
  guarded(error, [&] { store->store->set(key, std::vector<uint8_t>(value, value + size)); });
}

// The value in memory that mm_dist_free frees.
char *mm_dist_store_get(const StoreHandle *store, const char *key, size_t *size, char **error) {
  return guarded(error, [&]() -> char * {
    const auto value = store->store->get(key);
    char *copy = static_cast<char *>(std::malloc(value.size() + 1));
    if (!copy) throw std::bad_alloc();
    std::memcpy(copy, value.data(), value.size());
    *size = value.size();
    return copy;
  });
}

int64_t mm_dist_store_add(const StoreHandle *store, const char *key, int64_t amount, char **error) {
  return guarded(error, [&] { return store->store->add(key, amount); });
}

GroupHandle *mm_dist_gloo(const StoreHandle *store, int rank, int size, int64_t timeout_ms, const char *address,
                          char **error) {
  return guarded(error, [&]() -> GroupHandle * {
    auto options = c10d::ProcessGroupGloo::Options::create(Milliseconds(timeout_ms));
    using Gloo = c10d::ProcessGroupGloo;
    const std::string text(address);
    if (text.empty()) options->devices.push_back(Gloo::createDefaultDevice());
    else if (text.rfind("if:", 0) == 0) options->devices.push_back(Gloo::createDeviceForInterface(text.substr(3)));
    else options->devices.push_back(Gloo::createDeviceForHostname(text));
    auto gloo = c10::make_intrusive<Gloo>(store->store, rank, size, options);
    auto group = c10::make_intrusive<c10d::ProcessGroup>(store->store, rank, size);
    group->setBackend(at::kCPU, c10d::ProcessGroup::BackendType::GLOO, c10::intrusive_ptr<c10d::Backend>(gloo));
    group->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
    return new GroupHandle{gloo, group};
  });
}

void mm_dist_group_free(GroupHandle *group) { delete group; }

// In place; `operation` is one of c10d::ReduceOp's numbers.
void mm_dist_all_reduce(const GroupHandle *group, at::Tensor *tensor, int operation, char **error) {
  guarded(error, [&] {
    std::vector<at::Tensor> tensors{*tensor};
    c10d::AllreduceOptions options;
    options.reduceOp = c10d::ReduceOp(static_cast<c10d::ReduceOp::RedOpType>(operation));
    auto work = [&] {
      std::lock_guard<std::mutex> guard(first_operations);
      return group->gloo->allreduce(tensors, options);
    }();
    work->wait();
  });
}

// Makes `output` the sum.
void mm_dist_all_reduce_with_gradient(const GroupHandle *group, at::Tensor *output, at::Tensor *tensor, char **error) {
  guarded(error, [&] { *output = SumOverRanks::apply(*tensor, group->gloo); });
}

void mm_dist_broadcast(const GroupHandle *group, at::Tensor *tensor, int64_t root, char **error) {
  guarded(error, [&] {
    std::vector<at::Tensor> tensors{*tensor};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    group->gloo->broadcast(tensors, options)->wait();
  });
}

// `outputs`: one tensor for each rank, of the shape of `input`.
void mm_dist_all_gather(const GroupHandle *group, at::Tensor *const *outputs, int64_t count, at::Tensor *input,
                        char **error) {
  guarded(error, [&] {
    std::vector<std::vector<at::Tensor>> lists{tensors_of(outputs, count)};
    std::vector<at::Tensor> inputs{*input};
    group->gloo->allgather(lists, inputs)->wait();
  });
}

// Waits for all ranks; rank 0 names the ranks that did not come within the timeout.
void mm_dist_barrier(const GroupHandle *group, char **error) {
  guarded(error, [&] { group->gloo->monitoredBarrier(c10d::BarrierOptions(), true); });
}

c10d::Reducer *mm_dist_reducer(const GroupHandle *group, at::Tensor *const *parameters, int64_t count,
                               int64_t bucket_bytes, char **error) {
  return guarded(error, [&]() -> c10d::Reducer * {
    const auto all = tensors_of(parameters, count);
    c10d::verify_params_across_processes(group->group, all, {});
    const int64_t first = std::min<int64_t>(bucket_bytes, c10d::kDefaultFirstBucketBytes);
    const std::vector<bool> sparse(all.size(), false);
    const std::vector<size_t> limits{static_cast<size_t>(first), static_cast<size_t>(bucket_bytes)};
    auto buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(all, limits, sparse));
    // Gradients become ready roughly in the reverse order of the parameters.
    std::reverse(buckets.begin(), buckets.end());
    return new c10d::Reducer(all, buckets, group->group, sparse, bucket_bytes, /*find_unused_parameters=*/true,
                             /*gradient_as_bucket_view=*/false, {}, first, /*skip_all_reduce_unused_params=*/false,
                             /*use_python_reducer=*/false, {});
  });
}

// Before the backward pass of `loss`.
void mm_dist_reducer_prepare(c10d::Reducer *reducer, at::Tensor *loss, char **error) {
  guarded(error, [&] { reducer->prepare_for_backward({*loss}); });
}

void mm_dist_reducer_free(c10d::Reducer *reducer) {
  try {
    reducer->remove_autograd_hooks();
    delete reducer;
  } catch (...) {
  }
}

} // extern "C"
