// Messages between the ranks of a run by UCX: by shared memory within a host, and between hosts by the fastest network
// that UCX finds, such as TCP. Addresses are exchanged by who calls this; no other program takes part.

#ifndef DLRM_RANKS_MESSAGES_H_
#define DLRM_RANKS_MESSAGES_H_

#include <sys/prctl.h>
#include <time.h>
#include <ucp/api/ucp.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

namespace {

// The ranks. All of them do the same rounds in the same order; in a round a rank sends and receives what it has posted,
// and waits for all of it. Calls may come from several threads, one at a time.
class Group {
 public:
  static Group &Get() {
    static Group *group = new Group;  // never destroyed: other ranks may still read what it shares
    return *group;
  }

  int rank() const { return rank_; }
  int ranks() const { return ranks_; }
  int64_t sent_bytes() const { return sent_bytes_; }

  // Whether the network can be used. A rank gives up where it has waited for others longer than limit_s.
  bool Open(int rank, int ranks, double limit_s) {
    rank_ = rank, ranks_ = ranks, limit_s_ = limit_s;
    ucp_config_t *config;
    if (Failed(ucp_config_read(nullptr, nullptr, &config), "settings")) return false;
    ucp_params_t params{};
    params.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_ESTIMATED_NUM_EPS;
    params.features = UCP_FEATURE_TAG;
    params.estimated_num_eps = ranks;
    const ucs_status_t made = ucp_init(&params, config, &context_);
    ucp_config_release(config);
    if (Failed(made, "devices")) return false;
    ucp_worker_params_t own{};
    own.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
    own.thread_mode = UCS_THREAD_MODE_SERIALIZED;
    return !Failed(ucp_worker_create(context_, &own, &worker_), "devices");
  }

  // Where other ranks reach this one; empty where that can't be told.
  std::string Address() {
    ucp_address_t *address;
    size_t length;
    if (Failed(ucp_worker_get_address(worker_, &address, &length), "its address")) return {};
    std::string found(reinterpret_cast<const char *>(address), length);
    ucp_worker_release_address(worker_, address);
    return found;
  }

  // Reach all ranks, of which each one's address begins `length` bytes behind the one before.
  bool Connect(const char *addresses, int64_t length) {
    peers_.assign(ranks_, nullptr);
    for (int r = 0; r < ranks_; ++r) {
      if (r == rank_) continue;
      ucp_ep_params_t params{};
      params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS;
      params.address = reinterpret_cast<const ucp_address_t *>(addresses + r * length);
      if (Failed(ucp_ep_create(worker_, &params, &peers_[r]), "another rank's address")) return false;
    }
    char mine = 0;
    std::vector<char> others(ranks_);
    Begin();
    for (int r = 0; r < ranks_; ++r) {
      Send(r, 0, &mine, 1);
      Receive(r, 0, &others[r], 1);
    }
    return Wait();
  }

  // Begin a round.
  void Begin() { ++round_; }

  // Post a message to a rank, and one from it, as the part of this number of the round; nothing to and from itself. What
  // is received may be shorter than there is room for.
  void Send(int to, int part, const void *data, int64_t bytes) {
    if (to == rank_) return;
    const ucp_request_param_t param{};
    sent_bytes_ += bytes;
    Add(ucp_tag_send_nbx(peers_[to], data, bytes, Tag(rank_, part), &param), to, false, nullptr);
  }
  void Receive(int from, int part, void *data, int64_t room, int64_t *length = nullptr) {
    if (from == rank_) return;
    ucp_request_param_t param{};
    param.op_attr_mask = UCP_OP_ATTR_FLAG_NO_IMM_CMPL;  // so that there is a request to ask for the length
    Add(ucp_tag_recv_nbx(worker_, data, room, Tag(from, part), ~ucp_tag_t{0}, &param), from, true, length);
  }

  // End the round: whether all that was posted came through.
  bool Wait() {
    const auto begun = std::chrono::steady_clock::now();
    bool sound = true;
    int64_t looks = 0;
    for (const Pending &one : pending_) {
      if (UCS_PTR_IS_ERR(one.request)) {
        sound = sound && !Failed(UCS_PTR_STATUS(one.request), "a message", one.rank);
        continue;
      }
      ucs_status_t status = UCS_OK;
      while (sound && (status = StatusOf(one)) == UCS_INPROGRESS) {
        if (ucp_worker_progress(worker_) == 0) sound = Rest(++looks, begun, one.rank);
        else looks = 0;
      }
      if (sound && status != UCS_OK) sound = !Failed(status, "a message", one.rank);
      if (sound) ucp_request_free(one.request);  // else others may still write where it points: the run ends
    }
    pending_.clear();
    return sound;
  }

 private:
  static constexpr int64_t kSpins = 500, kShortRests = 1000;  // some 30 microseconds, and as many milliseconds

  struct Pending {
    void *request;
    int rank;
    bool comes;
    int64_t *length;
  };

  static ucs_status_t StatusOf(const Pending &one) {
    if (!one.comes) return ucp_request_check_status(one.request);
    ucp_tag_recv_info_t info;
    const ucs_status_t status = ucp_tag_recv_request_test(one.request, &info);
    if (status == UCS_OK && one.length) *one.length = static_cast<int64_t>(info.length);
    return status;
  }

  ucp_tag_t Tag(int from, int part) const {
    return static_cast<ucp_tag_t>(round_) << 24 | static_cast<ucp_tag_t>(part) << 20 | static_cast<ucp_tag_t>(from);
  }

  void Add(void *request, int rank, bool comes, int64_t *length) {
    if (request) pending_.push_back({request, rank, comes, length});
  }

  // Let others have the processor, which the one that is waited for may need; false once the wait is too long.
  bool Rest(int64_t looks, std::chrono::steady_clock::time_point begun, int rank) {
    if (looks < kSpins) return true;
    if (looks == kSpins) prctl(PR_SET_TIMERSLACK, 1000UL);  // nanoseconds; else each rest takes 50 microseconds more
    const timespec rest{0, looks < kShortRests ? 20000 : 200000};
    nanosleep(&rest, nullptr);
    const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - begun;
    if (waited.count() < limit_s_) return true;
    std::fprintf(stderr, "error: rank %d has waited %.0f s in vain for rank %d\n", rank_, waited.count(), rank);
    return false;
  }

  bool Failed(ucs_status_t status, const char *what, int rank = -1) const {
    if (status == UCS_OK) return false;
    const std::string with = rank < 0 ? "" : " with rank " + std::to_string(rank);
    std::fprintf(stderr, "error: rank %d: UCX fails at %s%s: %s\n", rank_, what, with.c_str(),
                 ucs_status_string(status));
    return true;
  }

  int rank_ = 0, ranks_ = 1;
  double limit_s_ = 0;
  ucp_context_h context_ = nullptr;
  ucp_worker_h worker_ = nullptr;
  std::vector<ucp_ep_h> peers_;
  std::vector<Pending> pending_;
  uint64_t round_ = 0;
  int64_t sent_bytes_ = 0;
};

}  // namespace

#endif  // DLRM_RANKS_MESSAGES_H_
