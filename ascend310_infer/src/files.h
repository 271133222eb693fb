// Whole files: read, checked, and written so that they are there whole or not at all.

#ifndef DLRM_INFER_FILES_H_
#define DLRM_INFER_FILES_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace dlrm {

// A whole number of decimal digits, at most `largest`; `what` opens the message of the error.
uint64_t ParseNumber(const std::string &text, uint64_t largest, const std::string &what);

// All bytes of a file of at most `largest` bytes.
std::string ReadFile(const std::filesystem::path &path, uint64_t largest);

// Reads a file of values that must have this many, and this CRC-32, 8 hex digits.
template <typename Value>
void ReadValues(const std::filesystem::path &path, const std::string &checksum, std::vector<Value> *values);

// A CRC-32 as 8 hex digits, and that of bytes, and of a whole file.
std::string Hex(uint32_t crc);
std::string Checksum(const void *data, size_t size);
std::string FileChecksum(const std::filesystem::path &path);

// Writes a file beside its place, then renames.
void WriteFile(const std::filesystem::path &path, const void *data, size_t size);

// Gives a folder to write to in place of `folder`, which Publish puts there; without it nothing is left.
class NewFolder {
 public:
  // `marker` is a file that tells an earlier folder of this kind, which is replaced, from anything else, which is not.
  NewFolder(std::filesystem::path folder, const std::string &marker);
  NewFolder(const NewFolder &) = delete;
  NewFolder &operator=(const NewFolder &) = delete;
  ~NewFolder();

  const std::filesystem::path &path() const { return beside_; }
  void Publish();

 private:
  std::filesystem::path folder_, beside_;
};

}  // namespace dlrm

#endif  // DLRM_INFER_FILES_H_
