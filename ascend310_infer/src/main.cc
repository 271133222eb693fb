// Scores rows with an exported DLRM on Ascend or CPU. Exit codes: 0, or 2 after one line that says what to mend.

#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <new>

#include "error.h"
#include "options.h"
#include "scoring.h"

namespace {

constexpr int kInputError = 2;

// A mapped file that is cut short or can't be read any more ends the program here.
void OnBusError(int) {
  constexpr char kLine[] = "error: the table file was changed, or its disk failed, while it was in use: export it again\n";
  const ssize_t written = write(STDERR_FILENO, kLine, sizeof kLine - 1);
  _exit(written < 0 ? kInputError + 1 : kInputError);
}

}  // namespace

int main(int argc, char **argv) {
  const auto start = dlrm::Clock::now();
  signal(SIGBUS, OnBusError);
  int code = 0;
  try {
    const auto options = dlrm::Options::Parse(argc, argv);
    if (options.help) {
      std::fputs(dlrm::kHelp, stdout);
    } else {
      dlrm::Score(options, start);
    }
  } catch (const dlrm::Error &error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    code = kInputError;
  } catch (const std::bad_alloc &) {
    std::fputs("error: there is not enough memory: give a smaller --batch_size\n", stderr);
    code = kInputError;
  }
  return code;
}
