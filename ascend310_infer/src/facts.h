// Small text files of facts that Python writes and reads too (src/base/sealed.py): a key and values a line, with tabs
// between, and a last line with the CRC-32 of all before it.

#ifndef DLRM_INFER_FACTS_H_
#define DLRM_INFER_FACTS_H_

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace dlrm {

constexpr char kIndex[] = "index";  // the file of facts of a folder of rows or scores

class Facts {
 public:
  using Line = std::vector<std::string>;

  // Reads a file of a kind; throws Error where it is damaged, or of another kind or version.
  Facts(const std::filesystem::path &path, const std::string &kind);

  // The values of each line of a key, in order; none where there is no such key.
  const std::vector<Line> &Lines(const std::string &key) const;
  // As Lines, where each must have `count` values, and there must be one at least.
  const std::vector<Line> &Lines(const std::string &key, size_t count) const;
  // The one value of a key, as text, or as a number between 1 and `largest`.
  const std::string &Text(const std::string &key) const;
  uint64_t Number(const std::string &key, uint64_t largest) const;
  // What the file ends with, which stands for all that is in it.
  const std::string &checksum() const { return checksum_; }

 private:
  std::filesystem::path path_;
  std::map<std::string, std::vector<Line>> lines_;
  std::string checksum_;
};

// Whether a file is one of a kind, of any version, even if it was damaged since.
bool BeginsAs(const std::filesystem::path &path, const std::string &kind);

// Writes such a file; each line is a key and its values.
void WriteFacts(const std::filesystem::path &path, const std::string &kind, const std::vector<Facts::Line> &lines);

}  // namespace dlrm

#endif  // DLRM_INFER_FACTS_H_
