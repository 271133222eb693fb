// What an operator is for MindSpore: a function compiled ahead of time that returns 0, or another number, which is
// reported as a failure. Parameters that it updates are among its inputs, and change in place.

#ifndef DLRM_KERNELS_OPERATOR_H_
#define DLRM_KERNELS_OPERATOR_H_

#include <cstdint>

#define OPERATOR(name) \
  extern "C" int name(int count, void **data, int *dims, int64_t **shapes, const char **, void *, void *)
#define ARGUMENTS const Arguments arguments{data, dims, shapes}; (void)count

namespace {

// A matrix whose rows begin `stride` values apart. Columns behind the named ones are never read.
template <typename T>
struct Rows {
  T *data;
  int64_t stride;
  T *operator[](int64_t row) const { return data + row * stride; }
};

// Inputs, then outputs.
struct Arguments {
  void **data;
  int *dims;
  int64_t **shapes;

  template <typename T = float>
  T *At(int i) const {
    return static_cast<T *>(data[i]);
  }
  template <typename T = float>
  Rows<T> Matrix(int i) const {
    return {static_cast<T *>(data[i]), shapes[i][1]};
  }
  int64_t Size(int i) const {
    int64_t size = 1;
    for (int k = 0; k < dims[i]; ++k) size *= shapes[i][k];
    return size;
  }
};

}  // namespace

#endif  // DLRM_KERNELS_OPERATOR_H_
