#include "quiet.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <mutex>

namespace dlrm {
namespace {

// Made once, at the start: there is a Quiet for each request. (Lite reads GLOG_v then, too.)
const int kept = std::getenv("GLOG_v") ? -1 : fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
const int nothing = kept < 0 ? -1 : open("/dev/null", O_WRONLY | O_CLOEXEC);

std::mutex mutex;
int quiets = 0;

void Lead(int to) {
  if (nothing >= 0) dup2(to, STDERR_FILENO);  // if it fails, Lite is heard
}

}  // namespace

Quiet::Quiet() {
  const std::lock_guard<std::mutex> lock(mutex);
  if (++quiets == 1) Lead(nothing);
}

Quiet::~Quiet() {
  const std::lock_guard<std::mutex> lock(mutex);
  if (--quiets == 0) Lead(kept);
}

int Stderr() { return nothing >= 0 ? kept : STDERR_FILENO; }

}  // namespace dlrm
