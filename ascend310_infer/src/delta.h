// What an export changed since an earlier one, in a folder that export.py --delta_from wrote (src/export/delta.py), and
// the models that an earlier one becomes by it.

#ifndef DLRM_INFER_DELTA_H_
#define DLRM_INFER_DELTA_H_

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "model_folder.h"
#include "tables.h"

namespace dlrm {

// A model and its tables, none where the graph has them. It never changes: a delta makes another.
struct Version {
  ModelFolder model;
  std::shared_ptr<const Tables> tables;

  // Reads and checks what export.py wrote.
  static Version Load(const std::filesystem::path &path);
};

// A delta, named by its description; nothing but that is read yet.
struct Delta {
  std::filesystem::path description;
  std::vector<std::string> old, made;  // identities of the model that it changes, and of the one this becomes

  // Reads and checks all of it, and gives the later model; throws Error where anything is damaged, or the delta is of
  // another model.
  Version Applied(const Version &version) const;
};

// A folder in which folders of deltas are put, whole, by renaming.
class Followed {
 public:
  // `path` is empty for no folder; it need not be there yet.
  explicit Followed(std::filesystem::path path) : path_(std::move(path)) {}

  // A delta that changes a model, if there is one; files that were read are not read again.
  const Delta *Next(const ModelFolder &model);
  // Passes over it from now on, unless another is put in its place.
  void Refuse(const Delta &delta);

 private:
  using State = std::tuple<std::string, uint64_t, int64_t, int64_t>;  // a file, its number, and when it was written

  std::filesystem::path path_;
  std::map<State, Delta> known_;  // those that can't be read change no model
};

}  // namespace dlrm

#endif  // DLRM_INFER_DELTA_H_
