// What the program leaves: result_Files/ with the scores, and time_Result/ with how long they took.

#ifndef DLRM_INFER_RESULTS_H_
#define DLRM_INFER_RESULTS_H_

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "files.h"
#include "model_folder.h"

namespace dlrm {

// The scores of each file of rows, in a folder that is there when all are.
class ResultFiles {
 public:
  explicit ResultFiles(const std::filesystem::path &output);

  void Write(const std::string &name, const std::vector<float> &scores);
  // Notes which model scores from a row on, of a run in which it may change.
  void Note(const ModelFolder &model, uint64_t first_row);
  // Adds the index, and puts the folder in its place. `rows` is the checksum of the index of the rows.
  void Finish(const std::string &rows, double seconds);

 private:
  NewFolder folder_;
  std::vector<std::vector<std::string>> lines_;
};

// How long requests took.
struct Times {
  double load_s = 0;         // from the start of the program until rows could be scored
  double first_score_s = 0;  // until the first request was answered
  double total_s = 0;        // scoring all rows, reading them included
  std::vector<double> request_ms;
  uint64_t batch_size = 0, rows = 0;
  std::vector<double> apply_s;  // until a delta that was found changed the model
  bool follows = false;
  uint64_t threads = 0;  // of a CPU that scored; 0 on Ascend
  double table_mb = 0;   // of the table file, what is in memory

  // Lines of name and value; also written to time_Result/test_perform_static.txt.
  std::string Report() const;
};

// Where the times go: a place that is there before rows are scored, and goes again unless they are written.
class TimesFile {
 public:
  explicit TimesFile(const std::filesystem::path &output);
  TimesFile(const TimesFile &) = delete;
  TimesFile &operator=(const TimesFile &) = delete;
  ~TimesFile();

  void Write(const Times &times) const;

 private:
  std::filesystem::path folder_, file_;
};

}  // namespace dlrm

#endif  // DLRM_INFER_RESULTS_H_
