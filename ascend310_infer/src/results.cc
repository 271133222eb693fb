#include "results.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <numeric>

#include "error.h"
#include "facts.h"

namespace dlrm {
namespace {

namespace fs = std::filesystem;

constexpr char kIndex[] = "index";

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
    if (line.compare(0, 6, "VmHWM:") == 0) return std::stod(line.substr(6)) / 1000;
  }
  return 0;
}

}  // namespace

ResultFiles::ResultFiles(const fs::path &output) : folder_(output / "result_Files", kIndex) {}

void ResultFiles::Write(const std::string &name, const std::vector<float> &scores) {
  const size_t size = scores.size() * sizeof(float);
  WriteFile(folder_.path() / name, scores.data(), size);
  lines_.push_back({"file", name, std::to_string(scores.size()), Checksum(scores.data(), size)});
}

void ResultFiles::Finish(const std::string &rows, double seconds) {
  lines_.insert(lines_.begin(), {{"rows", rows}, {"seconds", std::to_string(seconds)}});
  WriteFacts(folder_.path() / kIndex, "scores", lines_);
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
         Line("peak_memory_mb", PeakMemoryMb()) + Line("table_memory_mb", table_mb);
}

void WriteTimes(const fs::path &output, const Times &times) {
  std::error_code error;
  fs::create_directories(output / "time_Result", error);
  if (error) throw Error((output / "time_Result").string() + " can't be made: " + error.message());
  const std::string text = times.Report();
  WriteFile(output / "time_Result" / "test_perform_static.txt", text.data(), text.size());
}

}  // namespace dlrm
