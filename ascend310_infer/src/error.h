// The one exception for what a user can cause: its message is one line, and says what to do.

#ifndef DLRM_INFER_ERROR_H_
#define DLRM_INFER_ERROR_H_

#include <stdexcept>
#include <string>

namespace dlrm {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace dlrm

#endif  // DLRM_INFER_ERROR_H_
