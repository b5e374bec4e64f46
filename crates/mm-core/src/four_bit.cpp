// A product with a frozen weight of four bits a number (QLoRA, Dettmers 2023). libtorch keeps what a product multiplied by until the way
// back, and a weight that is unpacked for it would spare nothing: this function keeps the packed one and unpacks it once more then.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <exception>

namespace {

// Numbers that share a scale.
constexpr int64_t BLOCK = 64;

struct Packed {
  at::Tensor halves; // uint8, two numbers each, the first in the upper half
  at::Tensor scales; // float32, one a block
  at::Tensor levels; // float32, sixteen
  int64_t rows, columns;
};

template <typename T> void write(const Packed &p, T *to) {
  const uint8_t *halves = p.halves.const_data_ptr<uint8_t>();
  const float *scales = p.scales.const_data_ptr<float>(), *levels = p.levels.const_data_ptr<float>();
  // Both numbers of a byte at once.
  std::array<std::array<float, 2>, 256> both;
  for (int byte = 0; byte < 256; byte++) both[byte] = {levels[byte >> 4], levels[byte & 15]};
  at::parallel_for(0, p.scales.size(0), 1024, [&](int64_t from, int64_t until) {
    for (int64_t block = from; block < until; block++) {
      const float scale = scales[block];
      const uint8_t *in = halves + block * (BLOCK / 2);
      T *at = to + block * BLOCK;
      for (int64_t i = 0; i < BLOCK / 2; i++) {
        at[2 * i] = static_cast<T>(both[in[i]][0] * scale);
        at[2 * i + 1] = static_cast<T>(both[in[i]][1] * scale);
      }
    }
  });
}

// The matrix, until the next call on this thread: memory that came and went with each layer would be cut up by what stays between them.
at::Tensor unpack(const Packed &p, at::ScalarType type) {
  const int64_t count = p.rows * p.columns;
  if (!p.halves.is_cpu()) {
    auto upper = at::bitwise_right_shift(p.halves, 4), lower = at::bitwise_and(p.halves, 15);
    auto numbers = at::stack({upper, lower}, -1).flatten().to(at::kInt);
    auto values = p.levels.index_select(0, numbers).reshape({-1, BLOCK}).mul(p.scales.unsqueeze(1));
    return values.flatten().narrow(0, 0, count).reshape({p.rows, p.columns}).to(type);
  }
  thread_local std::array<at::Tensor, 2> kept;
  const bool half = type == at::kBFloat16;
  auto &room = kept[half];
  const int64_t wanted = p.scales.size(0) * BLOCK;
  if (!room.defined() || room.size(0) < wanted) room = at::empty({wanted}, half ? at::kBFloat16 : at::kFloat);
  if (half) write(p, room.mutable_data_ptr<at::BFloat16>());
  else write(p, room.mutable_data_ptr<float>());
  return room.narrow(0, 0, count).reshape({p.rows, p.columns}).to(type);
}

struct Product : torch::autograd::Function<Product> {
  static at::Tensor forward(torch::autograd::AutogradContext *context, const at::Tensor &x, const at::Tensor &halves,
                            const at::Tensor &scales, const at::Tensor &levels, int64_t rows, int64_t columns) {
    context->save_for_backward({halves, scales, levels});
    context->saved_data["rows"] = rows;
    context->saved_data["columns"] = columns;
    return at::linear(x, unpack({halves, scales, levels, rows, columns}, x.scalar_type()));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                 torch::autograd::variable_list gradients) {
    auto kept = context->get_saved_variables();
    Packed packed{kept[0], kept[1], kept[2], context->saved_data["rows"].toInt(), context->saved_data["columns"].toInt()};
    auto x = gradients[0].matmul(unpack(packed, gradients[0].scalar_type()));
    return {x, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

} // namespace

extern "C" {

// What is thrown comes back as a text in `error`, which `mm_four_bit_free` frees.
at::Tensor *mm_four_bit_linear(const at::Tensor *x, const at::Tensor *halves, const at::Tensor *scales,
                               const at::Tensor *levels, int64_t rows, int64_t columns, char **error) {
  try {
    return new at::Tensor(Product::apply(*x, *halves, *scales, *levels, rows, columns));
  } catch (const std::exception &e) {
    *error = strdup(e.what());
  } catch (...) {
    *error = strdup("an unknown exception");
  }
  return nullptr;
}

void mm_four_bit_free(char *error) { free(error); }
}
