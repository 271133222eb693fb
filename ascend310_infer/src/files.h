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

// MB of what the system's files call kB, which is 1024 bytes: "  12 kB".
double MbOfKib(const std::string &text);

// All bytes of a file of at most `largest` bytes.
std::string ReadFile(const std::filesystem::path &path, uint64_t largest);

// The values of a file, which must hold this many, and have this CRC-32, 8 hex digits.
template <typename Value>
std::vector<Value> ReadValues(const std::filesystem::path &path, uint64_t count, const std::string &checksum);

// A CRC-32 as 8 hex digits, and that of bytes, and of a whole file.
std::string Hex(uint32_t crc);
std::string Checksum(const void *data, size_t size);
std::string FileChecksum(const std::filesystem::path &path);

// Writes a file beside its place, then renames.
void WriteFile(const std::filesystem::path &path, const void *data, size_t size);

// Gives a folder to write to in place of `folder`, which Publish puts there; without it nothing is left.
//
// As src/base/files.py's whole_folder: all is done in FOLDER.writing, which one run holds, and which has the new folder,
// and the earlier one for the moment between two renames; the next run puts it back if this one is killed there.
class NewFolder {
 public:
  // `is_ours` tells an earlier folder of this kind, which is replaced, from anything else, which is not.
  NewFolder(const std::filesystem::path &folder, bool (*is_ours)(const std::filesystem::path &));
  NewFolder(const NewFolder &) = delete;
  NewFolder &operator=(const NewFolder &) = delete;
  ~NewFolder();

  std::filesystem::path path() const { return work_ / "new"; }
  void Publish();

 private:
  // Held until it goes.
  class Lock {
   public:
    Lock() = default;
    Lock(const Lock &) = delete;
    Lock &operator=(const Lock &) = delete;
    ~Lock();
    void Take(const std::filesystem::path &folder, const std::string &what);

   private:
    int file_ = -1;
  };

  std::filesystem::path Old() const { return work_ / "old"; }
  void PutBack() const;

  std::string shown_;
  std::filesystem::path folder_, work_;
  Lock lock_;
};

}  // namespace dlrm

#endif  // DLRM_INFER_FILES_H_
