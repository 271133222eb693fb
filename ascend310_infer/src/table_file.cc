#include "table_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "error.h"
#include "files.h"
#include "model_folder.h"

namespace dlrm {
namespace {

constexpr char kMagic[] = "DLRMTBL\n";
constexpr uint64_t kPage = 4096, kFixedBytes = 48;

}  // namespace

TableFile::TableFile(const std::filesystem::path &path) : path_(path) {
  const auto damaged = [&path](const std::string &reason) {
    return Error(path.string() + " is no whole table file, " + reason + ": export the model again");
  };
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) throw Error(path.string() + " can't be read: " + std::strerror(errno));
  struct stat status;
  const bool known = fstat(file, &status) == 0 && S_ISREG(status.st_mode);
  size_ = known ? static_cast<uint64_t>(status.st_size) : 0;
  void *mapped = size_ >= kPage ? mmap(nullptr, size_, PROT_READ, MAP_SHARED, file, 0) : MAP_FAILED;
  const int reason = errno;
  close(file);
  if (size_ < kPage) throw damaged("it has " + std::to_string(size_) + " bytes");
  if (mapped == MAP_FAILED) throw Error(path.string() + " can't be mapped into memory: " + std::strerror(reason));
  data_ = static_cast<const uint8_t *>(mapped);
  madvise(mapped, size_, MADV_RANDOM);  // rows lie anywhere: reading ahead would fill the memory with others

  try {
    const auto type = NumberAt<uint32_t>(data_, 12);
    const uint64_t width = NumberAt<uint32_t>(data_, 16), tables = NumberAt<uint32_t>(data_, 20), rows = NumberAt<uint64_t>(data_, 24);
    const uint64_t header = NumberAt<uint64_t>(data_, 32);
    if (std::memcmp(data_, kMagic, 8) != 0) throw damaged("it does not begin as one of this program");
    if (NumberAt<uint32_t>(data_, 8) != 1 || type > 2 || width - 1 >= kMostColumns || tables - 1 >= kMostColumns ||
        rows > kMostRows || header % kPage != 0 || header < kFixedBytes + 8 * tables + 4 || header > size_) {
      throw damaged("its header has values that are none");
    }
    identity_ = Checksum(data_, header - 4);
    if (identity_ != Hex(NumberAt<uint32_t>(data_, header - 4))) throw damaged("the checksum of its header differs");
    type_ = static_cast<Type>(type);
    width_ = width;
    row_bytes_ = type_ == Type::kFloat32 ? 4 * width : type_ == Type::kFloat16 ? 2 * width : 4 + width;
    uint64_t total = 0;
    for (uint64_t table = 0; table < tables; ++table) {
      table_rows_.push_back(std::min(NumberAt<uint64_t>(data_, kFixedBytes + 8 * table), kMostRows));
      total += table_rows_.back();
    }
    const uint64_t pages = (rows * row_bytes_ + kPage - 1) / kPage;
    if (total != rows) throw damaged("the rows of its tables do not add up");
    if (size_ != header + pages * (kPage + 4)) {
      throw damaged("it has " + std::to_string(size_) + " bytes instead of " +
                    std::to_string(header + pages * (kPage + 4)));
    }
    rows_ = data_ + header;
    checksums_ = rows_ + pages * kPage;
    if (Checksum(checksums_, 4 * pages) != Hex(NumberAt<uint32_t>(data_, 40))) {
      throw damaged("the checksum of its checksums differs");
    }
    checked_ = std::vector<std::atomic<bool>>(pages);
  } catch (...) {
    munmap(const_cast<uint8_t *>(data_), size_);
    throw;
  }
}

TableFile::~TableFile() { munmap(const_cast<uint8_t *>(data_), size_); }

void TableFile::CheckPages(const uint8_t *row) {
  const auto first = static_cast<uint64_t>(row - rows_) / kPage;
  const auto last = (static_cast<uint64_t>(row - rows_) + row_bytes_ - 1) / kPage;
  for (uint64_t page = first; page <= last; ++page) {
    if (!checked_[page].load(std::memory_order_relaxed)) CheckPage(page);
  }
}

void TableFile::CheckPage(uint64_t page) {
  if (crc32(0, rows_ + page * kPage, kPage) != NumberAt<uint32_t>(checksums_, 4 * page)) {
    throw Error(path_.string() + " is damaged (the checksum of page " + std::to_string(page) +
                " of its rows differs): export the model again");
  }
  checked_[page].store(true, std::memory_order_relaxed);  // two threads may both check a page
}

void TableFile::CheckAll() {
  const uint64_t size = checked_.size() * kPage;
  for (uint64_t start = 0; start < size; start += kPage) CheckPage(start / kPage);
}

double TableFile::ResidentMb() const {
  std::ifstream maps("/proc/self/smaps");
  std::string line;
  bool ours = false;
  while (std::getline(maps, line)) {  // a mapping begins with its addresses, FROM-TO in hex digits
    if (line.find('-') < line.find(' ')) {
      ours = std::strtoull(line.c_str(), nullptr, 16) == reinterpret_cast<uintptr_t>(data_);
    } else if (ours && line.compare(0, 4, "Rss:") == 0) {
      return MbOfKib(line.substr(4));
    }
  }
  return 0;
}

}  // namespace dlrm
