#include "files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <system_error>
#include <utility>

#include "error.h"

namespace dlrm {
namespace {

namespace fs = std::filesystem;

constexpr size_t kChunk = size_t{1} << 20;

uint32_t AddToCrc(uint32_t crc, const void *data, size_t size) {
  const auto *bytes = static_cast<const Bytef *>(data);
  while (size > 0) {  // zlib counts with 32 bits
    const size_t part = size < kChunk ? size : kChunk;
    crc = static_cast<uint32_t>(crc32(crc, bytes, static_cast<uInt>(part)));
    bytes += part;
    size -= part;
  }
  return crc;
}

// Why the last call to the system failed, as the end of a message.
std::string Reason() { return errno ? std::strerror(errno) : "unknown reason"; }

uint64_t FileSize(const fs::path &path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) throw Error(path.string() + " is not a file: name one that is there, or make it again");
  const auto size = fs::file_size(path, error);
  if (error) throw Error(path.string() + ": " + error.message());
  return size;
}

void ReadBytes(const fs::path &path, char *data, uint64_t size) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(path.string() + " can't be read: " + Reason());
  file.read(data, static_cast<std::streamsize>(size));
  if (!file) throw Error(path.string() + " can't be read to its end: is it being written?");
}

// A path without links, be there something or not.
fs::path Resolved(fs::path path) {
  std::error_code error;
  for (int links = 0; links < 40 && fs::is_symlink(path, error); ++links) {
    path = path.parent_path() / fs::read_symlink(path, error);
  }
  fs::path resolved = fs::weakly_canonical(path, error);
  return error ? path : resolved;
}

}  // namespace

uint64_t ParseNumber(const std::string &text, uint64_t largest, const std::string &what) {
  uint64_t number = 0;
  bool good = !text.empty();
  for (const char digit : text) {
    good = good && digit >= '0' && digit <= '9' && number <= largest / 10;
    if (good) number = 10 * number + static_cast<uint64_t>(digit - '0');
  }
  if (!good || number > largest) {
    throw Error(what + " is '" + text + "': it must be a whole number of at most " + std::to_string(largest));
  }
  return number;
}

double MbOfKib(const std::string &text) { return std::strtod(text.c_str(), nullptr) * 1024 / 1e6; }

std::string ReadFile(const fs::path &path, uint64_t largest) {
  const uint64_t size = FileSize(path);
  if (size > largest) throw Error(path.string() + " has " + std::to_string(size) + " bytes: it is no file of this kind");
  std::string data(size, '\0');
  ReadBytes(path, data.data(), size);
  return data;
}

template <typename Value>
std::vector<Value> ReadValues(const fs::path &path, uint64_t count, const std::string &checksum) {
  const uint64_t size = FileSize(path), expected = count * sizeof(Value);
  if (size != expected) {
    throw Error(path.string() + " has " + std::to_string(size) + " bytes, the index says " + std::to_string(expected) +
                ": run preprocess.py again");
  }
  std::vector<Value> values(count);
  ReadBytes(path, reinterpret_cast<char *>(values.data()), size);
  if (Checksum(values.data(), size) != checksum) {
    throw Error(path.string() + " is damaged (its checksum differs): run preprocess.py again");
  }
  return values;
}

template std::vector<float> ReadValues(const fs::path &, uint64_t, const std::string &);
template std::vector<int32_t> ReadValues(const fs::path &, uint64_t, const std::string &);

std::string Hex(uint32_t crc) {
  char text[9];
  std::snprintf(text, sizeof text, "%08x", crc);
  return text;
}

std::string Checksum(const void *data, size_t size) { return Hex(AddToCrc(0, data, size)); }

std::string FileChecksum(const fs::path &path) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(path.string() + " can't be read: " + Reason());
  std::vector<char> chunk(kChunk);
  uint32_t crc = 0;
  while (file) {
    file.read(chunk.data(), static_cast<std::streamsize>(chunk.size()));
    crc = AddToCrc(crc, chunk.data(), static_cast<size_t>(file.gcount()));
  }
  if (file.bad()) throw Error(path.string() + " can't be read to its end: " + Reason());
  return Hex(crc);
}

void WriteFile(const fs::path &path, const void *data, size_t size) {
  const fs::path beside = path.string() + ".tmp";
  std::string reason;
  errno = 0;
  {
    std::ofstream file(beside, std::ios::binary | std::ios::trunc);
    file.write(static_cast<const char *>(data), static_cast<std::streamsize>(size));
    file.close();
    if (!file) reason = Reason();
  }
  std::error_code error;
  if (reason.empty()) {
    fs::rename(beside, path, error);
    if (!error) return;
    reason = error.message();
  }
  fs::remove(beside, error);
  throw Error(path.string() + " can't be written: " + reason + "; free some space, or name another --output");
}

NewFolder::NewFolder(const fs::path &folder, bool (*is_ours)(const fs::path &))
    : shown_(folder.string()), folder_(Resolved(folder)), work_(folder_.string() + ".writing") {
  std::error_code error;
  if (fs::exists(folder_, error) &&
      !(fs::is_directory(folder_, error) && (fs::is_empty(folder_, error) || is_ours(folder_)))) {
    throw Error(shown_ + " holds something else than earlier results: name another --output");
  }
  fs::create_directories(work_, error);
  if (!error) lock_.Take(work_, shown_);
  if (!error) PutBack();
  if (!error) fs::remove_all(Old(), error);
  if (!error) fs::remove_all(path(), error);
  if (!error) fs::create_directory(path(), error);
  if (error) throw Error(shown_ + " can't be made: " + error.message() + "; name another --output");
}

NewFolder::~NewFolder() {
  PutBack();
  std::error_code ignored;
  fs::remove_all(work_, ignored);
}

void NewFolder::PutBack() const {
  std::error_code ignored;
  if (fs::exists(Old(), ignored) && !fs::exists(folder_, ignored)) fs::rename(Old(), folder_, ignored);
}

void NewFolder::Publish() {
  std::error_code error;
  if (fs::exists(folder_, error)) fs::rename(folder_, Old(), error);
  if (!error) fs::rename(path(), folder_, error);
  if (error) throw Error(shown_ + " can't be put in its place: " + error.message() + "; name another --output");
}

NewFolder::Lock::~Lock() {
  if (file_ >= 0) close(file_);
}

void NewFolder::Lock::Take(const fs::path &folder, const std::string &what) {
  file_ = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  struct stat held, there;
  // Whoever held it before may have removed it meanwhile.
  if (file_ < 0 || flock(file_, LOCK_EX | LOCK_NB) != 0 || fstat(file_, &held) != 0 ||
      stat(folder.c_str(), &there) != 0 || held.st_ino != there.st_ino) {
    throw Error(what + ": another run is at work there: wait for it, or name another --output");
  }
}

}  // namespace dlrm
