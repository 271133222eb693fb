// The distinct rows of a batch's ids, owner by owner: what is asked of each, once.
//
// Legend: b samples of this rank, L ids of a sample, D width of a vector.

#ifndef DLRM_RANKS_DISTINCT_H_
#define DLRM_RANKS_DISTINCT_H_

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

// Rows low <= id < high of a table, which their owner has from its row `start` on.
struct Piece {
  int32_t table, owner, low, high, start;
};

// Places of a table's ids low <= id < high: an array where these are few, else a table of hashes.
class Places {
 public:
  void Begin(int32_t low, int32_t high, int64_t draws) {
    low_ = low, high_ = high;
    direct_ = high - low <= 4 * draws;
    bits_ = 4;
    while ((int64_t{1} << bits_) < 2 * draws) ++bits_;
    values_.assign(direct_ ? high - low : int64_t{1} << bits_, -1);
    if (!direct_) keys_.resize(int64_t{1} << bits_);
  }

  bool Holds(int32_t id) const { return low_ <= id && id < high_; }

  // The place of an id, to be set where it is -1.
  int32_t &Of(int32_t id) {
    if (direct_) return values_[id - low_];
    const uint32_t mask = (uint32_t{1} << bits_) - 1;
    uint32_t slot = static_cast<uint32_t>(id) * 2654435769u >> (32 - bits_);
    while (values_[slot] >= 0 && keys_[slot] != id) slot = (slot + 1) & mask;
    keys_[slot] = id;
    return values_[slot];
  }

 private:
  bool direct_ = true;
  int32_t low_ = 0, high_ = 0;
  int bits_ = 4;
  std::vector<int32_t> values_, keys_;
};

// What a batch asks of whom.
struct Distinct {
  std::vector<std::vector<int32_t>> rows;  // of each owner, in the order in which they are first asked for
  std::vector<int32_t> places;  // [b, L], for each id the owner and the place among its rows, -1 for padding
  int bits = 0;

  int Owner(int32_t place) const { return place & ((1 << bits) - 1); }
  int64_t Index(int32_t place) const { return place >> bits; }

  // ids [b, L]; tables [L], the number of each id's; pieces in the order of the tables. False where an id is outside.
  bool Find(const int32_t *ids, int64_t samples, int64_t columns, const int32_t *tables, const Piece *pieces,
            int64_t count, int owners) {
    bits = 0;
    while ((1 << bits) < owners) ++bits;
    rows.resize(owners);
    for (auto &one : rows) one.clear();
    places.resize(samples * columns);
    for (int64_t first = 0, next; first < count; first = next) {
      const int32_t table = pieces[first].table;
      int32_t low = pieces[first].low, high = 0;
      for (next = first; next < count && pieces[next].table == table; ++next) {
        low = std::min(low, pieces[next].low);
        high = std::max(high, pieces[next].high);
      }
      const int64_t uses = std::count(tables, tables + columns, table);
      found_.Begin(low, high, samples * uses);
      for (int64_t l = 0; l < columns; ++l) {
        if (tables[l] != table) continue;
        if (!FindColumn(ids + l, samples, columns, pieces + first, next - first, places.data() + l)) return false;
      }
    }
    return true;
  }

 private:
  bool FindColumn(const int32_t *ids, int64_t samples, int64_t columns, const Piece *pieces, int64_t count,
                  int32_t *to) {
    for (int64_t i = 0; i < samples; ++i) {
      const int32_t id = ids[i * columns];
      if (id == -1) {  // padding
        to[i * columns] = -1;
        continue;
      }
      if (!found_.Holds(id)) return false;
      int32_t &place = found_.Of(id);
      if (place < 0) {
        int64_t p = 0;
        while (p < count && (id < pieces[p].low || id >= pieces[p].high)) ++p;
        if (p == count) return false;
        std::vector<int32_t> &own = rows[pieces[p].owner];
        if (static_cast<int64_t>(own.size()) >= int64_t{1} << (31 - bits)) return false;
        place = static_cast<int32_t>(own.size()) << bits | pieces[p].owner;
        own.push_back(pieces[p].start + id - pieces[p].low);
      }
      to[i * columns] = place;
    }
    return true;
  }

  Places found_;
};

}  // namespace

#endif  // DLRM_RANKS_DISTINCT_H_
