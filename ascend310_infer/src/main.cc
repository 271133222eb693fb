// Scores rows with an exported DLRM on Ascend or CPU. Exit codes: 0, or 2 after one line that says what to mend.

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <exception>
#include <new>
#include <string>

#include "error.h"
#include "options.h"
#include "quiet.h"
#include "scoring.h"

namespace {

constexpr int kInputError = 2;

// A mapped file that is cut short or can't be read any more ends the program here.
void OnBusError(int) {
  static std::atomic_flag taken = ATOMIC_FLAG_INIT;
  while (taken.test_and_set()) pause();  // another thread has come here before, and says it
  constexpr char kLine[] = "error: the table file was changed, or its disk failed, while it was in use: export it again\n";
  const ssize_t written = write(dlrm::Stderr(), kLine, sizeof kLine - 1);
  _exit(written < 0 ? kInputError + 1 : kInputError);
}

// One line on stderr, whatever a file's name is.
int Report(std::string line) {
  for (char &sign : line) sign = sign == '\n' || sign == '\r' ? ' ' : sign;
  std::fprintf(stderr, "error: %s\n", line.c_str());
  return kInputError;
}

}  // namespace

int main(int argc, char **argv) {
  const auto start = dlrm::Clock::now();
  signal(SIGBUS, OnBusError);
  try {
    const auto options = dlrm::Options::Parse(argc, argv);
    if (options.help) {
      std::fputs(dlrm::kHelp, stdout);
    } else {
      dlrm::Score(options, start);
    }
    return 0;
  } catch (const dlrm::Error &error) {
    return Report(error.what());
  } catch (const std::bad_alloc &) {
    return Report("there is not enough memory: end other programs, give a smaller --batch_size, or export the model with "
                  "--table_placement=host");
  } catch (const std::exception &error) {
    return Report(std::string("this should not happen: ") + error.what() + "; GLOG_v=1 shows what MindSpore Lite did");
  }
}
