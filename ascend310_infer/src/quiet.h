// What MindSpore Lite prints to stderr, several lines for a failure, is dropped: what fails is told in one line of ours.

#ifndef DLRM_INFER_QUIET_H_
#define DLRM_INFER_QUIET_H_

namespace dlrm {

// As long as there is one, in whichever thread, stderr leads nowhere, unless GLOG_v asks for what Lite says.
class Quiet {
 public:
  Quiet();
  Quiet(const Quiet &) = delete;
  Quiet &operator=(const Quiet &) = delete;
  ~Quiet();
};

// Where a line of ours goes meanwhile; a signal handler may ask.
int Stderr();

}  // namespace dlrm

#endif  // DLRM_INFER_QUIET_H_
