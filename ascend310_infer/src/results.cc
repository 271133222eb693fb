#include "results.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <system_error>

#include "error.h"
#include "facts.h"

namespace dlrm {
namespace {

namespace fs = std::filesystem;

constexpr char kKind[] = "scores";

std::string Line(const char *name, double value) {
  char text[96];
  std::snprintf(text, sizeof text, "%s: %.6g\n", name, value);
  return text;
}

// The least value that a share of all are not above.
double Percentile(const std::vector<double> &sorted, double share) {
  const auto index = static_cast<size_t>(std::ceil(share * static_cast<double>(sorted.size())));
  return sorted[std::max<size_t>(index, 1) - 1];
}

double PeakMemoryMb() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.compare(0, 6, "VmHWM:") == 0) return MbOfKib(line.substr(6));
  }
  return 0;
}

}  // namespace

ResultFiles::ResultFiles(const fs::path &output)
    : folder_(output / "result_Files", [](const fs::path &folder) { return BeginsAs(folder / kIndex, kKind); }) {}

void ResultFiles::Write(const std::string &name, const std::vector<float> &scores) {
  const size_t size = scores.size() * sizeof(float);
  WriteFile(folder_.path() / name, scores.data(), size);
  lines_.push_back({"file", name, std::to_string(scores.size()), Checksum(scores.data(), size)});
}

void ResultFiles::Note(const ModelFolder &model, uint64_t first_row) {
  lines_.push_back({"model", model.description, std::to_string(first_row)});
}

void ResultFiles::Finish(const std::string &rows, double seconds) {
  lines_.insert(lines_.begin(), {{"rows", rows}, {"seconds", std::to_string(seconds)}});
  WriteFacts(folder_.path() / kIndex, kKind, lines_);
  folder_.Publish();
}

std::string Times::Report() const {
  std::vector<double> sorted = request_ms;
  std::sort(sorted.begin(), sorted.end());
  const double sum_ms = std::accumulate(sorted.begin(), sorted.end(), 0.0);
  return Line("rows", static_cast<double>(rows)) + Line("batch_size", static_cast<double>(batch_size)) +
         Line("requests", static_cast<double>(sorted.size())) +
         Line("average_ms", sum_ms / static_cast<double>(sorted.size())) + Line("p50_ms", Percentile(sorted, 0.5)) +
         Line("p99_ms", Percentile(sorted, 0.99)) + Line("rows_per_s", 1000 * static_cast<double>(rows) / sum_ms) +
         Line("total_s", total_s) + Line("load_s", load_s) + Line("first_score_s", first_score_s) +
         Line("peak_memory_mb", PeakMemoryMb()) + Line("table_memory_mb", table_mb) +
         (threads ? Line("threads", static_cast<double>(threads)) : "") +
         (follows ? Line("deltas", static_cast<double>(apply_s.size())) +
                        Line("apply_s", apply_s.empty() ? 0 : *std::max_element(apply_s.begin(), apply_s.end()))
                  : "");
}

TimesFile::TimesFile(const fs::path &output)
    : folder_(output / "time_Result"), file_(folder_ / "test_perform_static.txt") {
  std::error_code error, none;
  fs::create_directories(folder_, error);
  if (!error && fs::is_directory(file_, none)) error = std::make_error_code(std::errc::is_a_directory);
  if (error) {
    throw Error(file_.string() + " can't be made: " + error.message() +
                "; move away what is there, or name another --output");
  }
}

TimesFile::~TimesFile() {
  std::error_code ignored;
  fs::remove(folder_, ignored);  // which it is only if nothing is in it
}

void TimesFile::Write(const Times &times) const {
  const std::string text = times.Report();
  WriteFile(file_, text.data(), text.size());
}

}  // namespace dlrm
