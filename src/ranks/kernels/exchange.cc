// What travels between ranks in a training step, as operators that MindSpore's runtime calls through ops.Custom, and
// functions that connect the ranks; src/ranks/ucx.py builds and names them.
//
// Legend: b samples of a rank, N ranks, L ids of a sample, D width of a vector, R rows that a rank holds, P room for
// rows. All ranks call the operators in one order. Sums run over the ranks in the order of their numbers.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../../network/kernels/operator.h"
#include "distinct.h"
#include "messages.h"
#include "wire.h"

namespace {

// Memory that grows, and is not cleared.
class Buffer {
 public:
  char *Of(int64_t bytes) {
    if (static_cast<int64_t>(bytes_.size()) < bytes) bytes_ = std::vector<char>(bytes);
    return bytes_.data();
  }
  char *data() { return bytes_.data(); }

 private:
  std::vector<char> bytes_;
};

// What this rank has asked of others, and they of it, since the last lookup.
struct Asked {
  Distinct own;
  std::vector<std::vector<int32_t>> by_others;  // rows of this rank's table, [N]
  std::vector<Buffer> sends, comes;

  void Resize(int ranks) { by_others.resize(ranks), sends.resize(ranks), comes.resize(ranks); }
};

Asked &TheAsked() {
  static Asked *asked = new Asked;
  asked->Resize(Group::Get().ranks());
  return *asked;
}

// Sums of the gradients [b, L, D] of each distinct row, times share: of each owner's rows to sums[owner].
void SumUp(const Distinct &distinct, const float *gradients, int64_t width, float share, float *const *sums) {
  const int owners = static_cast<int>(distinct.rows.size());
  for (int r = 0; r < owners; ++r) std::memset(sums[r], 0, distinct.rows[r].size() * width * 4);
  const int64_t places = static_cast<int64_t>(distinct.places.size());
  for (int64_t i = 0; i < places; ++i) {
    const int32_t place = distinct.places[i];
    if (place < 0) continue;
    float *__restrict sum = sums[distinct.Owner(place)] + distinct.Index(place) * width;
    const float *__restrict one = gradients + i * width;
    for (int64_t k = 0; k < width; ++k) sum[k] += one[k];
  }
  for (int r = 0; r < owners; ++r)
    for (int64_t i = 0, n = distinct.rows[r].size() * width; i < n; ++i) sums[r][i] *= share;
}

// Rows behind which no more follow, in room for P of them.
void End(int32_t *rows, int64_t used, int64_t room) {
  for (int64_t i = used; i < room; ++i) rows[i] = -1;
}

}  // namespace

extern "C" {

// 0, or 1 where the network can't be used; a line on stderr says why.
int RanksOpen(int rank, int ranks, double limit_s) { return !Group::Get().Open(rank, ranks, limit_s); }

// Writes this rank's address, of at most `room` bytes; its length, or 0.
int64_t RanksAddress(char *to, int64_t room) {
  const std::string address = Group::Get().Address();
  if (static_cast<int64_t>(address.size()) > room) return 0;
  std::memcpy(to, address.data(), address.size());
  return static_cast<int64_t>(address.size());
}

// Addresses of all ranks, `length` bytes apart; 0, or 1.
int RanksConnect(const char *addresses, int64_t length) { return !Group::Get().Connect(addresses, length); }

// Bytes that this rank has sent so far.
int64_t RanksSent() { return Group::Get().sent_bytes(); }
}

// values [n], share, wire [1] int32 -> the sum over the ranks times share, [n]. The last value travels as float32.
OPERATOR(RanksMean) {
  ARGUMENTS;
  Group &group = Group::Get();
  Asked &asked = TheAsked();
  const float *values = arguments.At(0), share = *arguments.At(1);
  const Wire wire = static_cast<Wire>(*arguments.At<int32_t>(2));
  float *to = arguments.At(3);
  const int ranks = group.ranks(), self = group.rank();
  const int64_t averaged = arguments.Size(0) - 1;
  const auto low = [=](int r) { return averaged * r / ranks; };
  const int64_t own = low(self + 1) - low(self);
  std::vector<float> lasts(ranks);
  lasts[self] = values[averaged];
  group.Begin();
  for (int r = 0; r < ranks; ++r) {
    if (r == self) continue;
    const int64_t size = low(r + 1) - low(r);
    if (own > 0) group.Receive(r, 0, asked.comes[r].Of(own * BytesOf(wire)), own * BytesOf(wire));
    group.Receive(r, 1, &lasts[r], 4);
    const char *packed = reinterpret_cast<const char *>(values + low(r));
    if (wire != kFloat32) {
      char *place = asked.sends[r].Of(size * BytesOf(wire));
      Pack(wire, values + low(r), size, place);
      packed = place;
    }
    if (size > 0) group.Send(r, 0, packed, size * BytesOf(wire));
    group.Send(r, 1, &values[averaged], 4);
  }
  if (!group.Wait()) return 1;
  float *sum = to + low(self);
  std::vector<float> unpacked(wire == kFloat32 ? 0 : own);
  for (int r = 0; r < ranks; ++r) {
    const float *one = r == self ? values + low(self) : reinterpret_cast<const float *>(asked.comes[r].data());
    if (r != self && wire != kFloat32) {
      Unpack(wire, asked.comes[r].data(), own, unpacked.data());
      one = unpacked.data();
    }
    if (r == 0)
      for (int64_t i = 0; i < own; ++i) sum[i] = one[i];
    else
      for (int64_t i = 0; i < own; ++i) sum[i] += one[i];
  }
  for (int64_t i = 0; i < own; ++i) sum[i] *= share;
  Round(wire, sum, own);
  float last = 0;
  for (int r = 0; r < ranks; ++r) last += lasts[r];
  to[averaged] = last * share;
  if (averaged == 0) return 0;
  const char *packed = reinterpret_cast<const char *>(sum);
  if (wire != kFloat32) {
    char *place = asked.sends[self].Of(own * BytesOf(wire));
    Pack(wire, sum, own, place);
    packed = place;
  }
  group.Begin();
  for (int r = 0; r < ranks; ++r) {
    if (r == self) continue;
    const int64_t bytes = (low(r + 1) - low(r)) * BytesOf(wire);
    char *place = wire == kFloat32 ? reinterpret_cast<char *>(to + low(r)) : asked.comes[r].Of(bytes);
    group.Receive(r, 0, place, bytes);
    group.Send(r, 0, packed, own * BytesOf(wire));
  }
  if (!group.Wait()) return 1;
  for (int r = 0; wire != kFloat32 && r < ranks; ++r)
    if (r != self) Unpack(wire, asked.comes[r].data(), low(r + 1) - low(r), to + low(r));
  return 0;
}

// table [R, D], ids [b, L] int32, tables [L] int32, pieces [n, 5] int32, wire [1] int32 -> vectors [b, L, D], each from
// the rank that has its row; zeros for padding, an id of -1. Each row is asked for and sent once.
OPERATOR(RanksLookup) {
  ARGUMENTS;
  Group &group = Group::Get();
  Asked &asked = TheAsked();
  const float *table = arguments.At(0);
  const int64_t samples = shapes[1][0], columns = shapes[1][1], width = shapes[0][1], held = shapes[0][0];
  const Piece *pieces = reinterpret_cast<const Piece *>(arguments.At<int32_t>(3));
  const Wire wire = static_cast<Wire>(*arguments.At<int32_t>(4));
  float *to = arguments.At(5);
  const int ranks = group.ranks(), self = group.rank();
  Distinct &own = asked.own;
  if (!own.Find(arguments.At<int32_t>(1), samples, columns, arguments.At<int32_t>(2), pieces, shapes[3][0], ranks))
    return 1;
  std::vector<int64_t> lengths(ranks);
  const int64_t room = std::min(held, samples * columns) * 4;
  group.Begin();
  for (int r = 0; r < ranks; ++r) {
    group.Receive(r, 0, asked.comes[r].Of(r == self ? 0 : room), room, &lengths[r]);
    group.Send(r, 0, own.rows[r].data(), static_cast<int64_t>(own.rows[r].size()) * 4);
  }
  if (!group.Wait()) return 1;
  const int64_t bytes = width * BytesOf(wire);
  for (int r = 0; r < ranks; ++r) {
    const int32_t *wanted = r == self ? own.rows[r].data() : reinterpret_cast<int32_t *>(asked.comes[r].data());
    const int64_t count = r == self ? static_cast<int64_t>(own.rows[r].size()) : lengths[r] / 4;
    asked.by_others[r].assign(wanted, wanted + count);
  }
  group.Begin();
  for (int r = 0; r < ranks; ++r) {
    if (r == self) continue;
    const int64_t coming = static_cast<int64_t>(own.rows[r].size()) * bytes;
    group.Receive(r, 0, asked.comes[r].Of(coming), coming);
    const std::vector<int32_t> &wanted = asked.by_others[r];
    const int64_t count = static_cast<int64_t>(wanted.size());
    char *packed = asked.sends[r].Of(count * bytes);
    for (int64_t i = 0; i < count; ++i) {
      if (wanted[i] < 0 || wanted[i] >= held) return 1;
      if (i + 16 < count) __builtin_prefetch(table + wanted[i + 16] * width);
      Pack(wire, table + wanted[i] * width, width, packed + i * bytes);
    }
    group.Send(r, 0, packed, count * bytes);
  }
  if (!group.Wait()) return 1;
  for (int64_t i = 0; i < samples * columns; ++i) {
    const int32_t place = own.places[i];
    float *vector = to + i * width;
    if (place < 0) {
      std::memset(vector, 0, width * 4);
    } else if (const int owner = own.Owner(place); owner == self) {
      std::memcpy(vector, table + int64_t{own.rows[self][own.Index(place)]} * width, width * 4);
    } else {
      Unpack(wire, asked.comes[owner].data() + own.Index(place) * bytes, width, vector);
    }
  }
  return 0;
}

// Gradients [b, L, D] of the last lookup's vectors, share, wire [1] int32 -> rows [P, 1] int32 of this rank's table, and
// gradients [P, 1, D]: of each rank's samples the sum for each row, times share, rank by rank. A row of -1 ends them.
OPERATOR(RanksGradients) {
  ARGUMENTS;
  Group &group = Group::Get();
  Asked &asked = TheAsked();
  const Distinct &own = asked.own;
  const int64_t width = shapes[0][2], room = shapes[3][0];
  const Wire wire = static_cast<Wire>(*arguments.At<int32_t>(2));
  int32_t *rows = arguments.At<int32_t>(3);
  float *to = arguments.At(4);
  const int ranks = group.ranks(), self = group.rank();
  if (static_cast<int64_t>(own.places.size()) != shapes[0][0] * shapes[0][1]) return 1;
  std::vector<int64_t> firsts(ranks + 1);
  for (int r = 0; r < ranks; ++r) firsts[r + 1] = firsts[r] + static_cast<int64_t>(asked.by_others[r].size());
  if (firsts[ranks] > room) return 1;
  std::vector<float *> sums(ranks);
  for (int r = 0; r < ranks; ++r)
    sums[r] = r == self ? to + firsts[self] * width
                        : reinterpret_cast<float *>(asked.sends[r].Of(own.rows[r].size() * width * 4));
  SumUp(own, arguments.At(0), width, *arguments.At(1), sums.data());
  const int64_t bytes = width * BytesOf(wire);
  group.Begin();
  for (int r = 0; r < ranks; ++r) {
    const int64_t mine = static_cast<int64_t>(asked.by_others[r].size()), others = own.rows[r].size();
    if (mine > 0) std::memcpy(rows + firsts[r], asked.by_others[r].data(), mine * 4);
    if (r == self) continue;
    char *place = reinterpret_cast<char *>(to + firsts[r] * width);
    if (wire != kFloat32) {
      place = asked.comes[r].Of(mine * bytes);
      std::vector<char> packed(others * bytes);
      Pack(wire, sums[r], others * width, packed.data());
      std::memcpy(sums[r], packed.data(), packed.size());
    }
    group.Receive(r, 0, place, mine * bytes);
    group.Send(r, 0, sums[r], others * bytes);
  }
  if (!group.Wait()) return 1;
  for (int r = 0; wire != kFloat32 && r < ranks; ++r)
    if (r != self) Unpack(wire, asked.comes[r].data(), asked.by_others[r].size() * width, to + firsts[r] * width);
  End(rows, firsts[ranks], room);
  return 0;
}

// rows [b, L] int32 that this rank has looked up in tables that all hold, gradients [b, L, D], tables [L] int32, pieces
// [n, 5] int32 of one owner, share, wire [1] int32 -> the same of all ranks, as RanksGradients gives them: rows [P, 1],
// gradients [P, 1, D].
OPERATOR(RanksAllGradients) {
  ARGUMENTS;
  Group &group = Group::Get();
  Asked &asked = TheAsked();
  static Distinct *distinct = new Distinct;
  const int64_t samples = shapes[0][0], columns = shapes[0][1], width = shapes[1][2], room = shapes[6][0];
  const Piece *pieces = reinterpret_cast<const Piece *>(arguments.At<int32_t>(3));
  const Wire wire = static_cast<Wire>(*arguments.At<int32_t>(5));
  int32_t *rows = arguments.At<int32_t>(6);
  float *to = arguments.At(7);
  const int ranks = group.ranks(), self = group.rank();
  if (!distinct->Find(arguments.At<int32_t>(0), samples, columns, arguments.At<int32_t>(2), pieces, shapes[3][0], 1))
    return 1;
  const std::vector<int32_t> &own = distinct->rows[0];
  const int64_t found = static_cast<int64_t>(own.size()), bytes = width * BytesOf(wire), most = room / ranks;
  float *sums = reinterpret_cast<float *>(asked.sends[self].Of(found * width * 4));
  SumUp(*distinct, arguments.At(1), width, *arguments.At(4), &sums);
  Round(wire, sums, found * width);
  const char *packed = reinterpret_cast<const char *>(sums);
  if (wire != kFloat32) {
    char *place = asked.comes[self].Of(found * bytes);
    Pack(wire, sums, found * width, place);
    packed = place;
  }
  std::vector<int64_t> lengths(ranks);
  std::vector<std::vector<int32_t>> of_others(ranks);
  group.Begin();
  for (int r = 0; r < ranks; ++r) {
    if (r == self) continue;
    of_others[r].resize(most);
    group.Receive(r, 0, of_others[r].data(), most * 4, &lengths[r]);
    group.Receive(r, 1, asked.comes[r].Of(most * bytes), most * bytes);
    group.Send(r, 0, own.data(), found * 4);
    group.Send(r, 1, packed, found * bytes);
  }
  if (!group.Wait()) return 1;
  int64_t done = 0;
  for (int r = 0; r < ranks; ++r) {
    const int64_t more = r == self ? found : lengths[r] / 4;
    if (done + more > room) return 1;
    if (more > 0) std::memcpy(rows + done, r == self ? own.data() : of_others[r].data(), more * 4);
    if (r == self) std::memcpy(to + done * width, sums, more * width * 4);
    else Unpack(wire, asked.comes[r].data(), more * width, to + done * width);
    done += more;
  }
  End(rows, done, room);
  return 0;
}
