#include "delta.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <system_error>
#include <utility>

#include "error.h"
#include "facts.h"
#include "files.h"

namespace dlrm {
namespace {

namespace fs = std::filesystem;

constexpr char kRemake[] = ": make the delta again";

// A file of rows' ids, which must be of a folder's checked files.
std::vector<uint32_t> ReadIds(const fs::path &path) {
  const std::string data = ReadFile(path, 4 * kMostRows);
  std::vector<uint32_t> ids(data.size() / 4);
  std::memcpy(ids.data(), data.data(), 4 * ids.size());
  return ids;
}

// Throws Error unless the ids of each table rise, and give a row to each that it has more than before.
void CheckRows(const fs::path &path, const std::vector<uint32_t> &ids, const std::vector<uint64_t> &counts,
               const std::vector<uint64_t> &before, const std::vector<uint64_t> &now) {
  bool good = counts.size() == now.size() && before.size() == now.size();
  size_t place = 0;
  for (size_t table = 0; good && table < now.size(); ++table) {
    uint64_t more = 0;
    const size_t first = place;
    good = counts[table] <= ids.size() - place && before[table] <= now[table];
    for (; good && place < first + counts[table]; ++place) {
      good = ids[place] < now[table] && (place == first || ids[place - 1] < ids[place]);
      more += ids[place] >= before[table];
    }
    good = good && more == now[table] - before[table];
  }
  if (!good || place != ids.size()) {
    throw Error(path.string() + ": the rows that change contradict the model's tables" + kRemake);
  }
}

std::string Words(const std::vector<std::string> &identity) {
  std::string words;
  for (const auto &word : identity) words += (words.empty() ? "" : " ") + word;
  return words;
}

}  // namespace

Version Version::Load(const fs::path &path) {
  Version version{ModelFolder::Load(path), nullptr};
  const ModelFolder &model = version.model;
  if (!model.on_host()) return version;
  auto file = std::make_shared<TableFile>(model.table);
  if (file->identity() != model.table_identity || file->table_rows() != model.table_rows || file->width() != model.width) {
    throw Error(model.table.string() + " is of another export than the model: export the model again");
  }
  version.tables = std::make_shared<const Tables>(std::move(file));
  return version;
}

Version Delta::Applied(const Version &version) const {
  const fs::path folder = description.parent_path();
  const Facts facts(description, "delta");
  if (facts.Lines("old", 3).front() != version.model.identity()) {
    throw Error(folder.string() + " changes another model: it is of " + Words(facts.Lines("old", 3).front()) +
                ", and this one is " + Words(version.model.identity()) + ": apply deltas in the order they were made in");
  }
  std::vector<std::string> checked;
  for (const auto &line : facts.Lines("file", 3)) {
    const fs::path file = ModelFolder::Inside(folder, line[0]);
    ModelFolder::CheckSize(file, line[1], kRemake);
    if (FileChecksum(file) != line[2]) throw Error(file.string() + " is damaged (its checksum differs)" + kRemake);
    checked.push_back(line[0]);
  }
  for (const char *key : {"description", "rows"}) {
    if (std::find(checked.begin(), checked.end(), facts.Text(key)) == checked.end()) {
      throw Error(folder.string() + " has no checksum of " + facts.Text(key) + kRemake);
    }
  }
  Version later{ModelFolder::Described(folder / facts.Text("description"), false), nullptr};
  const auto &table = facts.Lines("table", 3).front();
  const fs::path values = ModelFolder::Inside(folder, table[0]);
  ModelFolder::CheckSize(values, table[1], kRemake);
  auto file = std::make_shared<TableFile>(values);
  file->CheckAll();
  const std::vector<uint32_t> ids = ReadIds(folder / facts.Text("rows"));
  const Tables &before = *version.tables;
  if (later.model.identity() != facts.Lines("new", 3).front() || file->identity() != table[2] ||
      file->width() != before.width() || file->type() != before.type() || later.model.width != before.width() ||
      !later.model.HasFieldsOf(version.model)) {
    throw Error(folder.string() + " contradicts itself, or the model that it is of" + kRemake);
  }
  CheckRows(folder, ids, file->table_rows(), before.table_rows(), later.model.table_rows);
  later.tables = std::make_shared<const Tables>(before, std::move(file), ids, later.model.table_rows);
  return later;
}

const Delta *Followed::Next(const ModelFolder &model) {
  if (path_.empty() || !model.on_host()) return nullptr;
  std::map<State, Delta> known;
  std::error_code error, none;
  for (const auto &folder : fs::directory_iterator(path_, error)) {
    for (const auto &entry : fs::directory_iterator(folder.path(), none)) {
      struct stat status;
      if (entry.path().extension() != ".delta" || stat(entry.path().c_str(), &status) != 0) continue;
      const State state(entry.path().string(), status.st_ino, status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
      Delta delta{entry.path(), {}, {}};
      if (const auto found = known_.find(state); found != known_.end()) {
        delta = found->second;
      } else {
        try {
          const Facts facts(entry.path(), "delta");
          delta.old = facts.Lines("old", 3).front();
          delta.made = facts.Lines("new", 3).front();
        } catch (const Error &) {  // damaged, or gone
        }
      }
      known.emplace(state, std::move(delta));
    }
  }
  known_ = std::move(known);
  for (const auto &[state, delta] : known_) {
    if (delta.old == model.identity()) return &delta;
  }
  return nullptr;
}

void Followed::Refuse(const Delta &delta) {
  for (auto &[state, one] : known_) {
    if (&one == &delta) one.old.clear();
  }
}

}  // namespace dlrm
