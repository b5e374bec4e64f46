// What neither tch nor libtorch's C functions offer: torch.distributed's store, its gloo backend, the reducer of
// DistributedDataParallel, which starts to average gradients while the backward pass still runs, and the profiler that
// shows whether it does. NCCL needs the headers of CUDA, and is in a library of its own (nccl.cpp).
//
// Every function catches C++ exceptions and returns their text through `error`, which mm_dist_free frees.

#define USE_C10D_GLOO

#include <ATen/ATen.h>
#include <c10/util/Flags.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/profiler_kineto.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>
#include <torch/version.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <queue>
#include <unordered_map>

C10_DECLARE_int(caffe2_log_level);

// The level of what PyTorch's profiler (kineto) logs, whose headers the wheel lacks.
namespace libkineto {
class Logger {
public:
  static std::atomic_int severityLevel_;
};
} // namespace libkineto

namespace {

using Milliseconds = std::chrono::milliseconds;

struct StoreHandle {
  c10::intrusive_ptr<c10d::Store> store;
};

using Backend = c10::intrusive_ptr<c10d::Backend>;

struct GroupHandle {
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;
  // For tensors on GPUs, from mm_dist_group_nccl on.
  Backend nccl;
  // Both, for the reducer.
  c10::intrusive_ptr<c10d::ProcessGroup> group;

  // What sends a tensor.
  Backend backend_of(const at::Tensor &tensor) const {
    if (!tensor.is_cuda()) return gloo;
    TORCH_CHECK(nccl.defined(), "the tensor is on a GPU, and the process group has no NCCL");
    return nccl;
  }
};

// mm_nccl_backend of nccl.cpp.
using CreateBackend = c10d::Backend *(*)(c10d::Store *, int, int, int64_t, int, const char *, char **);

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

// Warnings and errors that libtorch logs carry stack frames, and this crate's errors say who failed. TORCH_CPP_LOG_LEVEL
// brings them back.
void quiet_warnings() {
  if (!std::getenv("TORCH_CPP_LOG_LEVEL")) FLAGS_caffe2_log_level = std::max(FLAGS_caffe2_log_level, 3);
}

// Where there is no GPU, the profiler logs the failure to count them as an error. KINETO_LOG_LEVEL brings it back.
void quiet_profiler() {
  const int nothing = 5;
  if (!at::hasCUDA() && !std::getenv("KINETO_LOG_LEVEL")) libkineto::Logger::severityLevel_ = nothing;
}

// libtorch's flight recorder adds a group at its first operation to a map of all groups without a lock (local.rs).
std::mutex first_operations;

std::vector<at::Tensor> tensors_of(at::Tensor *const *tensors, int64_t count) {
  std::vector<at::Tensor> all;
  all.reserve(count);
  for (int64_t i = 0; i < count; i++) all.push_back(*tensors[i]);
  return all;
}

void sum_over_ranks(const Backend &backend, at::Tensor &tensor) {
  std::vector<at::Tensor> tensors{tensor};
  backend->allreduce(tensors, c10d::AllreduceOptions())->wait();
}

// Batch normalization by the statistics of all ranks, as torch.nn.SyncBatchNorm: one collective in each direction.
struct SyncBatchNorm : torch::autograd::Function<SyncBatchNorm> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext *context, const at::Tensor &input,
                                                const at::Tensor &weight, const at::Tensor &bias, double eps,
                                                const Backend &backend) {
    const auto [own_mean, own_variance] = at::batch_norm_update_stats(input, {}, {}, 0.0);
    const double own_count = static_cast<double>(input.numel()) / static_cast<double>(input.size(1));
    const auto mean64 = own_mean.to(at::kDouble);
    const auto square64 = own_variance.to(at::kDouble) + mean64 * mean64;
    auto sums = at::cat({mean64 * own_count, square64 * own_count, at::full({1}, own_count, mean64.options())});
    sum_over_ranks(backend, sums);
    const int64_t channels = input.size(1);
    const double count = sums[-1].item<double>();
    const auto all_mean = sums.narrow(0, 0, channels) / count;
    const auto all_variance = (sums.narrow(0, channels, channels) / count - all_mean * all_mean).clamp_min(0.0);
    const auto mean = all_mean.to(weight.scalar_type()), variance = all_variance.to(weight.scalar_type());
    const auto output = at::batch_norm(input, weight, bias, mean, variance, false, 0.0, eps, false);
    context->save_for_backward({input, weight, mean, variance});
    context->saved_data["backend"] = c10::IValue::make_capsule(backend);
    context->saved_data["eps"] = eps;
    context->saved_data["count"] = count;
    // What a running variance takes is unbiased.
    const auto unbiased = variance * (count / std::max(count - 1.0, 1.0));
    context->mark_non_differentiable({mean, unbiased});
    return {output, mean, unbiased};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto &input = saved[0], &weight = saved[1], &mean = saved[2], &variance = saved[3];
    const double eps = context->saved_data["eps"].toDouble(), count = context->saved_data["count"].toDouble();
    const auto capsule = context->saved_data["backend"].toCapsule();
    const auto backend = Backend::reclaim_copy(static_cast<c10d::Backend *>(capsule.get()));
    const auto &gradient = gradients[0];
    const auto own = at::native_batch_norm_backward(gradient, input, weight, mean, variance, {}, {}, false, eps,
                                                    {false, true, true});
    const auto &own_weight = std::get<1>(own), &own_bias = std::get<2>(own);
    auto sums = at::stack({own_weight, own_bias});
    sum_over_ranks(backend, sums);
    // With x̂ = (x − mean) · inverse: weight · inverse · (gradient − Σ gradient / count − x̂ · Σ (gradient · x̂) / count).
    const auto inverse = (variance + eps).rsqrt();
    const auto scale = weight * inverse;
    const auto of_input = -scale * inverse * sums[0] / count;
    const auto constant = -scale * sums[1] / count;
    std::vector<int64_t> shape(input.dim(), 1);
    shape[1] = input.size(1);
    // Differences from the mean first: a large mean would cancel only roughly.
    auto result = (input - mean.view(shape)).mul_(of_input.view(shape)).add_(constant.view(shape));
    result = result.addcmul_(gradient, scale.view(shape)).to(input.scalar_type());
    return {result, own_weight, own_bias, at::Tensor(), at::Tensor()};
  }
};

// Goes through the graph of a loss as the autograd engine does: of the operations whose gradients are complete, the one
// that ran last in the forward pass comes first.
std::vector<int64_t> gradient_order(const at::Tensor &loss, const std::vector<at::Tensor> &parameters) {
  using torch::autograd::Node;
  std::unordered_map<Node *, int64_t> positions;
  std::vector<std::shared_ptr<Node>> accumulators;
  for (size_t i = 0; i < parameters.size(); i++) {
    accumulators.push_back(torch::autograd::impl::grad_accumulator(parameters[i]));
    positions[accumulators.back().get()] = static_cast<int64_t>(i);
  }
  Node *root = loss.grad_fn().get();
  std::vector<int64_t> order;
  if (!root) return order;
  // How many gradients each operation waits for.
  std::unordered_map<Node *, int64_t> missing{{root, 0}};
  std::vector<Node *> unseen{root};
  while (!unseen.empty()) {
    Node *node = unseen.back();
    unseen.pop_back();
    for (const auto &edge : node->next_edges()) {
      if (edge.function && missing[edge.function.get()]++ == 0) unseen.push_back(edge.function.get());
    }
  }
  const auto ran_before = [](Node *a, Node *b) { return a->sequence_nr() < b->sequence_nr(); };
  std::priority_queue<Node *, std::vector<Node *>, decltype(ran_before)> ready(ran_before);
  ready.push(root);
  while (!ready.empty()) {
    Node *node = ready.top();
    ready.pop();
    if (const auto position = positions.find(node); position != positions.end()) order.push_back(position->second);
    for (const auto &edge : node->next_edges()) {
      if (edge.function && --missing[edge.function.get()] == 0) ready.push(edge.function.get());
    }
  }
  return order;
}

} // namespace

extern "C" {

void mm_dist_free(char *text) { std::free(text); }

// The version of the headers that this file was compiled with.
const char *mm_dist_torch_version() { return TORCH_VERSION; }

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
    return new GroupHandle{gloo, {}, group};
  });
}

// Lets tensors on the GPU `device` travel through NCCL, which `create` of the library that is built of nccl.cpp connects.
void mm_dist_group_nccl(GroupHandle *group, const StoreHandle *store, CreateBackend create, int64_t timeout_ms,
                        int device, const char *name, char **error) {
  guarded(error, [&] {
    // NCCL's watchdog logs why it ends the process.
    const int errors = 2;
    if (!std::getenv("TORCH_CPP_LOG_LEVEL")) FLAGS_caffe2_log_level = std::min(FLAGS_caffe2_log_level, errors);
    auto shared = store->store;
    const int rank = group->group->getRank(), size = group->group->getSize();
    auto *nccl = create(shared.release(), rank, size, timeout_ms, device, name, error);
    if (*error) return;
    TORCH_CHECK(nccl, "mm_nccl_backend returned no object");
    group->nccl = Backend::reclaim(nccl);
    group->group->setBackend(at::kCUDA, c10d::ProcessGroup::BackendType::NCCL, group->nccl);
  });
}

// NCCL waits for no rank that is gone; what the ranks have read of its results is complete.
void mm_dist_group_free(GroupHandle *group) {
  try {
    if (group->nccl.defined()) group->nccl->abort();
  } catch (...) {
  }
  delete group;
}

// In place; `operation` is one of c10d::ReduceOp's numbers.
void mm_dist_all_reduce(const GroupHandle *group, at::Tensor *tensor, int operation, char **error) {
  guarded(error, [&] {
    std::vector<at::Tensor> tensors{*tensor};
    c10d::AllreduceOptions options;
    options.reduceOp = c10d::ReduceOp(static_cast<c10d::ReduceOp::RedOpType>(operation));
    auto work = [&] {
      std::lock_guard<std::mutex> guard(first_operations);
      return group->backend_of(*tensor)->allreduce(tensors, options);
    }();
    work->wait();
  });
}

// `outputs`: the normalized input, and the mean and unbiased variance of each channel over all ranks.
void mm_dist_batch_norm(const GroupHandle *group, at::Tensor *const *outputs, at::Tensor *input, at::Tensor *weight,
                        at::Tensor *bias, double eps, char **error) {
  guarded(error, [&] {
    const auto found = SyncBatchNorm::apply(*input, *weight, *bias, eps, group->backend_of(*input));
    for (size_t i = 0; i < 3; i++) *outputs[i] = found[i];
  });
}

void mm_dist_broadcast(const GroupHandle *group, at::Tensor *tensor, int64_t root, char **error) {
  guarded(error, [&] {
    std::vector<at::Tensor> tensors{*tensor};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    group->backend_of(*tensor)->broadcast(tensors, options)->wait();
  });
}

// `outputs`: one tensor for each rank, of the shape of `input`.
void mm_dist_all_gather(const GroupHandle *group, at::Tensor *const *outputs, int64_t count, at::Tensor *input,
                        char **error) {
  guarded(error, [&] {
    std::vector<std::vector<at::Tensor>> lists{tensors_of(outputs, count)};
    std::vector<at::Tensor> inputs{*input};
    group->backend_of(*input)->allgather(lists, inputs)->wait();
  });
}

// Waits for all ranks; rank 0 names the ranks that did not come within the timeout.
void mm_dist_barrier(const GroupHandle *group, char **error) {
  guarded(error, [&] { group->gloo->monitoredBarrier(c10d::BarrierOptions(), true); });
}

// The buckets hold the parameters in the order that is given: that in which their gradients become ready, at best.
c10d::Reducer *mm_dist_reducer(const GroupHandle *group, at::Tensor *const *parameters, int64_t count,
                               int64_t bucket_bytes, char **error) {
  return guarded(error, [&]() -> c10d::Reducer * {
    const auto all = tensors_of(parameters, count);
    c10d::verify_params_across_processes(group->group, all, {});
    const int64_t first = std::min<int64_t>(bucket_bytes, c10d::kDefaultFirstBucketBytes);
    const std::vector<bool> sparse(all.size(), false);
    const std::vector<size_t> limits{static_cast<size_t>(first), static_cast<size_t>(bucket_bytes)};
    const auto buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(all, limits, sparse));
    return new c10d::Reducer(all, buckets, group->group, sparse, bucket_bytes, /*find_unused_parameters=*/true,
                             /*gradient_as_bucket_view=*/false, {}, first, /*skip_all_reduce_unused_params=*/false,
                             /*use_python_reducer=*/false, {});
  });
}

// Writes the positions of parameters in the order in which the backward pass of `loss` completes their gradients, and
// returns how many it reaches.
int64_t mm_dist_gradient_order(at::Tensor *loss, at::Tensor *const *parameters, int64_t count, int64_t *order,
                               char **error) {
  return guarded(error, [&]() -> int64_t {
    const auto found = gradient_order(*loss, tensors_of(parameters, count));
    std::copy(found.begin(), found.end(), order);
    return static_cast<int64_t>(found.size());
  });
}

// Before the backward pass of `loss`.
void mm_dist_reducer_prepare(c10d::Reducer *reducer, at::Tensor *loss, char **error) {
  guarded(error, [&] { reducer->prepare_for_backward({*loss}); });
}

// Records the operations of this thread and of the backward passes that it starts, as torch.profiler.
void mm_dist_profiler_start(char **error) {
  using namespace torch::autograd::profiler;
  guarded(error, [&] {
    const ProfilerConfig config(ProfilerState::KINETO);
    std::set<ActivityType> activities{ActivityType::CPU};
    if (at::hasCUDA()) activities.insert(ActivityType::CUDA);
    prepareProfiler(config, activities);
    enableProfiler(config, activities);
  });
}

// Ends the recording, in the thread that started it, and writes a Chrome trace to `path` unless that is null.
void mm_dist_profiler_stop(const char *path, char **error) {
  guarded(error, [&] {
    quiet_profiler();
    const auto result = torch::autograd::profiler::disableProfiler();
    if (path) result->save(path);
  });
}

void mm_dist_reducer_free(c10d::Reducer *reducer) {
  try {
    reducer->remove_autograd_hooks();
    delete reducer;
  } catch (...) {
  }
}

} // extern "C"
