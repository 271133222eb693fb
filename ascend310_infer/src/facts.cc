#include "facts.h"

#include <algorithm>
#include <fstream>
#include <string_view>

#include "error.h"
#include "files.h"

namespace dlrm {
namespace {

constexpr uint64_t kLargestFile = uint64_t{1} << 26;
constexpr std::string_view kSeal = "crc32\t";
constexpr size_t kSealSize = kSeal.size() + 9;  // and 8 hex digits and a line end
constexpr char kVersion[] = "1";

Facts::Line Words(std::string_view line) {
  Facts::Line words;
  for (size_t tab; (tab = line.find('\t')) != std::string_view::npos; line.remove_prefix(tab + 1)) {
    words.emplace_back(line.substr(0, tab));
  }
  words.emplace_back(line);
  return words;
}

}  // namespace

bool BeginsAs(const std::filesystem::path &path, const std::string &kind) {
  const std::string begin = "dlrm\t" + kind + "\t";
  std::string found(begin.size(), '\0');
  std::ifstream file(path, std::ios::binary);
  return file.read(found.data(), static_cast<std::streamsize>(found.size())) && found == begin;
}

Facts::Facts(const std::filesystem::path &path, const std::string &kind) : path_(path) {
  const std::string data = ReadFile(path, kLargestFile);
  const size_t size = data.size() < kSealSize ? 0 : data.size() - kSealSize;
  if (size > 0) checksum_ = data.substr(size + kSeal.size(), 8);
  if (size == 0 || data.compare(size, kSeal.size(), kSeal) != 0 || data.back() != '\n' || data[size - 1] != '\n' ||
      Checksum(data.data(), size) != checksum_) {
    throw Error(path.string() + " is damaged (its checksum differs): make it again");
  }
  std::string_view rest(data.data(), size);
  for (bool first = true; !rest.empty(); first = false) {
    const size_t end = rest.find('\n');
    Line words = Words(rest.substr(0, end));
    rest.remove_prefix(end + 1);
    const std::string key = words.front();
    words.erase(words.begin());
    if (first && (key != "dlrm" || words != Line{kind, kVersion})) {
      throw Error(path.string() + " is no " + kind + " of this version of the program: make it again");
    }
    if (!first) lines_[key].push_back(std::move(words));
  }
}

const std::vector<Facts::Line> &Facts::Lines(const std::string &key) const {
  static const std::vector<Line> none;
  const auto found = lines_.find(key);
  return found == lines_.end() ? none : found->second;
}

const std::vector<Facts::Line> &Facts::Lines(const std::string &key, size_t count) const {
  const auto &lines = Lines(key);
  if (lines.empty() ||
      std::any_of(lines.begin(), lines.end(), [count](const Line &line) { return line.size() != count; })) {
    throw Error(path_.string() + " has no lines '" + key + "' of " + std::to_string(count) +
                " values: make it again with this version of the program");
  }
  return lines;
}

const std::string &Facts::Text(const std::string &key) const { return Lines(key, 1).front().front(); }

uint64_t Facts::Number(const std::string &key, uint64_t largest) const {
  const uint64_t number = ParseNumber(Text(key), largest, path_.string() + ": " + key);
  if (number == 0) throw Error(path_.string() + ": " + key + " is 0: make it again");
  return number;
}

void WriteFacts(const std::filesystem::path &path, const std::string &kind, const std::vector<Facts::Line> &lines) {
  std::string text = "dlrm\t" + kind + "\t" + kVersion + "\n";
  for (const auto &line : lines) {
    for (size_t i = 0; i < line.size(); ++i) text += (i ? "\t" : "") + line[i];
    text += "\n";
  }
  text += std::string(kSeal) + Checksum(text.data(), text.size()) + "\n";
  WriteFile(path, text.data(), text.size());
}

}  // namespace dlrm
