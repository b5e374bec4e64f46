// What neither tch nor libtorch's C functions offer, compiled for the feature `nf4`:
//
// 1. The product with a frozen four-bit weight (NF4 of QLoRA, Dettmers et al., 2023). libtorch saves the operands of a
//    product for the backward pass, so an unpacked weight would save no memory: this function saves the packed one and
//    unpacks it again.
// 2. Whether a tensor is the only one that refers to its memory.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <exception>

namespace {

// Values that share a scale; the same constant is in nf4.rs.
constexpr int64_t BLOCK = 64;

struct Nf4 {
  at::Tensor packed; // uint8, two values each, the first in the upper four bits
  at::Tensor scales; // float32, one per block
  at::Tensor codebook; // float32, sixteen values
  int64_t rows, columns;
};

template <typename T> void unpack_into(const Nf4 &p, T *to) {
  const uint8_t *packed = p.packed.const_data_ptr<uint8_t>();
  const float *scales = p.scales.const_data_ptr<float>(), *codebook = p.codebook.const_data_ptr<float>();
  // Both values of each byte.
  std::array<std::array<float, 2>, 256> both;
  for (int byte = 0; byte < 256; byte++) both[byte] = {codebook[byte >> 4], codebook[byte & 15]};
  at::parallel_for(0, p.scales.size(0), 1024, [&](int64_t from, int64_t until) {
    for (int64_t block = from; block < until; block++) {
      const float scale = scales[block];
      const uint8_t *in = packed + block * (BLOCK / 2);
      T *at = to + block * BLOCK;
      for (int64_t i = 0; i < BLOCK / 2; i++) {
        at[2 * i] = static_cast<T>(both[in[i]][0] * scale);
        at[2 * i + 1] = static_cast<T>(both[in[i]][1] * scale);
      }
    }
  });
}

// The matrix, valid until the next call on this thread: a buffer per layer would fragment the memory.
at::Tensor unpack(const Nf4 &p, at::ScalarType type) {
  const int64_t count = p.rows * p.columns;
  if (!p.packed.is_cpu()) {
    auto upper = at::bitwise_right_shift(p.packed, 4), lower = at::bitwise_and(p.packed, 15);
    auto indices = at::stack({upper, lower}, -1).flatten().to(at::kInt);
    auto values = p.codebook.index_select(0, indices).reshape({-1, BLOCK}).mul(p.scales.unsqueeze(1));
    return values.flatten().narrow(0, 0, count).reshape({p.rows, p.columns}).to(type);
  }
  thread_local std::array<at::Tensor, 2> buffers;
  const bool half = type == at::kBFloat16;
  auto &buffer = buffers[half];
  const int64_t wanted = p.scales.size(0) * BLOCK;
  if (!buffer.defined() || buffer.size(0) < wanted) buffer = at::empty({wanted}, half ? at::kBFloat16 : at::kFloat);
  if (half) unpack_into(p, buffer.mutable_data_ptr<at::BFloat16>());
  else unpack_into(p, buffer.mutable_data_ptr<float>());
  return buffer.narrow(0, 0, count).reshape({p.rows, p.columns}).to(type);
}

struct Product : torch::autograd::Function<Product> {
  static at::Tensor forward(torch::autograd::AutogradContext *context, const at::Tensor &x, const at::Tensor &packed,
                            const at::Tensor &scales, const at::Tensor &codebook, int64_t rows, int64_t columns) {
    context->save_for_backward({packed, scales, codebook});
    context->saved_data["rows"] = rows;
    context->saved_data["columns"] = columns;
    return at::linear(x, unpack({packed, scales, codebook, rows, columns}, x.scalar_type()));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                 torch::autograd::variable_list gradients) {
    auto saved = context->get_saved_variables();
    Nf4 weight{saved[0], saved[1], saved[2], context->saved_data["rows"].toInt(), context->saved_data["columns"].toInt()};
    auto x = gradients[0].matmul(unpack(weight, gradients[0].scalar_type()));
    return {x, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

} // namespace

extern "C" {

// An exception is returned as text in `error`, to be freed with `mm_free_error`.
at::Tensor *mm_nf4_linear(const at::Tensor *x, const at::Tensor *packed, const at::Tensor *scales,
                          const at::Tensor *codebook, int64_t rows, int64_t columns, char **error) {
  try {
    return new at::Tensor(Product::apply(*x, *packed, *scales, *codebook, rows, columns));
  } catch (const std::exception &e) {
    *error = strdup(e.what());
  } catch (...) {
    *error = strdup("an unknown exception");
  }
  return nullptr;
}

void mm_free_error(char *error) { free(error); }

// Whether nothing else refers to the tensor or to its memory. Memory without an allocator is not the tensor's own. A view
// keeps the tensor that it was made from, which may be all that is left of that one.
bool mm_is_sole_owner(const at::Tensor *tensor) {
  if (!tensor->defined() || tensor->use_count() != 1 || tensor->requires_grad() || !tensor->has_storage()) return false;
  const auto &storage = tensor->storage();
  if (storage.allocator() == nullptr) return false;
  if (!tensor->is_view()) return storage.use_count() == 1;
  const auto &base = tensor->_base();
  return base.use_count() == 1 && !base.requires_grad() && storage.use_count() == 2;
}
}
