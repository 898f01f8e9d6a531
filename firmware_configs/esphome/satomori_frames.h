// The frames that satomori's microcontrollers speak, and what decides when they speak. No hardware here: this file is compiled by
// ESPHome into the firmware, and by a test on any computer against the vectors that the Python side is held to.
//
// Formats: edge/README.md, sections "The trap's radio frame" and "people_counter".
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

namespace satomori {

using Key = std::array<uint8_t, 16>;
using Block = std::array<uint8_t, 16>;

// --- AES-128 (FIPS 197), encryption only: a CMAC needs no more. Written for size; one frame takes two blocks. Own, because
// mbedTLS changes its interface between the frameworks that ESPHome builds on.

inline uint8_t twice(uint8_t x) { return static_cast<uint8_t>((x << 1) ^ ((x & 0x80) ? 0x1b : 0)); }

inline const std::array<uint8_t, 256> &sbox() {
  static const std::array<uint8_t, 256> box = [] {
    std::array<uint8_t, 256> made{};
    uint8_t p = 1, q = 1;  // p runs through all but 0, q is its inverse
    do {
      p = static_cast<uint8_t>(p ^ twice(p));  // times 3
      q ^= static_cast<uint8_t>(q << 1);       // divided by 3
      q ^= static_cast<uint8_t>(q << 2);
      q ^= static_cast<uint8_t>(q << 4);
      if (q & 0x80)
        q ^= 0x09;
      auto turned = [q](int by) { return static_cast<uint8_t>((q << by) | (q >> (8 - by))); };
      made[p] = static_cast<uint8_t>(q ^ turned(1) ^ turned(2) ^ turned(3) ^ turned(4) ^ 0x63);
    } while (p != 1);
    made[0] = 0x63;
    return made;
  }();
  return box;
}

inline Block encrypted(const Key &key, const Block &plain) {
  const auto &box = sbox();
  Key round_key = key;
  Block state;
  for (size_t i = 0; i < 16; i++)
    state[i] = plain[i] ^ round_key[i];
  uint8_t constant = 1;
  for (int round = 1; round <= 10; round++) {
    Block shifted;
    for (size_t column = 0; column < 4; column++)
      for (size_t row = 0; row < 4; row++)
        shifted[4 * column + row] = box[state[4 * ((column + row) % 4) + row]];
    if (round < 10) {
      for (size_t column = 0; column < 4; column++) {
        uint8_t *c = &shifted[4 * column];
        const uint8_t all = c[0] ^ c[1] ^ c[2] ^ c[3], first = c[0];
        for (size_t row = 0; row < 4; row++) {
          const uint8_t next = row < 3 ? c[row + 1] : first;
          c[row] = static_cast<uint8_t>(c[row] ^ all ^ twice(static_cast<uint8_t>(c[row] ^ next)));
        }
      }
    }
    const std::array<uint8_t, 4> last = {round_key[13], round_key[14], round_key[15], round_key[12]};
    for (size_t i = 0; i < 4; i++)
      round_key[i] ^= static_cast<uint8_t>(box[last[i]] ^ (i == 0 ? constant : 0));
    for (size_t i = 4; i < 16; i++)
      round_key[i] ^= round_key[i - 4];
    constant = twice(constant);
    for (size_t i = 0; i < 16; i++)
      state[i] = shifted[i] ^ round_key[i];
  }
  return state;
}

// AES-CMAC (RFC 4493).
inline Block cmac(const Key &key, const uint8_t *message, size_t length) {
  auto doubled = [](const Block &b) {
    Block out;
    for (size_t i = 0; i < 16; i++)
      out[i] = static_cast<uint8_t>((b[i] << 1) | (i < 15 ? b[i + 1] >> 7 : 0));
    if (b[0] & 0x80)
      out[15] ^= 0x87;
    return out;
  };
  Block subkey = doubled(encrypted(key, Block{}));
  const size_t whole = length == 0 ? 0 : (length - 1) / 16;  // blocks before the last one
  Block x{};
  for (size_t block = 0; block < whole; block++) {
    for (size_t i = 0; i < 16; i++)
      x[i] ^= message[16 * block + i];
    x = encrypted(key, x);
  }
  const size_t rest = length - 16 * whole;
  Block last{};
  for (size_t i = 0; i < rest; i++)
    last[i] = message[16 * whole + i];
  if (rest < 16) {
    last[rest] = 0x80;
    subkey = doubled(subkey);
  }
  for (size_t i = 0; i < 16; i++)
    x[i] ^= static_cast<uint8_t>(last[i] ^ subkey[i]);
  return encrypted(key, x);
}

// CRC-16/CCITT-FALSE: polynomial 1021, start FFFF, nothing reflected; 29B1 of "123456789".
inline uint16_t crc16(const uint8_t *data, size_t length) {
  uint16_t crc = 0xFFFF;
  for (size_t i = 0; i < length; i++) {
    crc ^= static_cast<uint16_t>(data[i] << 8);
    for (int bit = 0; bit < 8; bit++)
      crc = static_cast<uint16_t>((crc & 0x8000) ? (crc << 1) ^ 0x1021 : crc << 1);
  }
  return crc;
}

// 32 hexadecimal digits. Anything else gives false, and the firmware then says nothing rather than something unproved.
inline bool parse_key(const std::string &hex, Key *key) {
  if (hex.size() != 32)
    return false;
  for (size_t i = 0; i < 32; i++) {
    const char c = hex[i];
    int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0)
      return false;
    (*key)[i / 2] = static_cast<uint8_t>(i % 2 ? (*key)[i / 2] | digit : digit << 4);
  }
  return true;
}

// --- The trap's frame -------------------------------------------------------------------------------

enum class Why : uint8_t { HEARTBEAT = 0, SET = 1, SPRUNG = 2, VIBRATION = 3, TILT = 4, TAMPER = 5, BAIT_LEVEL = 6 };

struct TrapFrame {
  Why why = Why::HEARTBEAT;
  bool sprung = false;
  bool tamper_open = false;
  uint16_t address = 0;           // 1 to 65534
  uint32_t counter = 0;           // never twice under one key
  uint16_t battery_mv = 0;        // 0: not measured
  int8_t tilt_half_deg = -128;    // in steps of 2 degrees; -128: not measured
  uint8_t bait_percent = 255;     // 255: not measured
  uint16_t bump = 0xFFFF;         // 0 again after 65534; 65535: not measured
  uint16_t pir_count = 0xFFFF;    // likewise
};

inline std::vector<uint8_t> encode(const TrapFrame &frame, const Key &key) {
  std::vector<uint8_t> out;
  out.reserve(24);
  auto little = [&out](uint32_t value, int bytes) {
    for (int i = 0; i < bytes; i++)
      out.push_back(static_cast<uint8_t>(value >> (8 * i)));
  };
  out.push_back(static_cast<uint8_t>(0x10 | static_cast<uint8_t>(frame.why)));
  out.push_back(static_cast<uint8_t>((frame.sprung ? 1 : 0) | (frame.tamper_open ? 2 : 0)));
  little(frame.address, 2);
  little(frame.counter, 4);
  little(frame.battery_mv, 2);
  out.push_back(static_cast<uint8_t>(frame.tilt_half_deg));
  out.push_back(frame.bait_percent);
  little(frame.bump, 2);
  little(frame.pir_count, 2);
  const Block mac = cmac(key, out.data(), out.size());
  out.insert(out.end(), mac.begin(), mac.begin() + 8);
  return out;
}

// A number with its sign and two decimals; whole ones without them, if they may. Not every chip's printf has fractions.
inline std::string decimal(float value, bool always) {
  const long hundredths = std::lround(value * 100);
  const long size = hundredths < 0 ? -hundredths : hundredths;
  char text[48];
  if (size % 100 == 0 && !always)
    snprintf(text, sizeof text, "%c%ld", hundredths < 0 ? '-' : '+', size / 100);
  else
    snprintf(text, sizeof text, "%c%ld.%02ld", hundredths < 0 ? '-' : '+', size / 100, size % 100);
  return text;
}

// What the receiver prints for a frame that it heard, ours or not, with its newline. Empty for what no radio hears.
inline std::string line(const std::vector<uint8_t> &payload, float rssi_dbm, float snr_db) {
  if (payload.empty() || payload.size() > 240 || !(std::fabs(rssi_dbm) < 1000) || !(std::fabs(snr_db) < 1000))
    return "";
  std::string out = decimal(rssi_dbm, false) + " " + decimal(snr_db, true) + " ";
  char text[8];
  for (uint8_t byte : payload) {
    snprintf(text, sizeof text, "%02x", byte);
    out += text;
  }
  snprintf(text, sizeof text, " %04x\n", crc16(reinterpret_cast<const uint8_t *>(out.data()), out.size()));
  return out + text;
}

// --- What the trap remembers while it sleeps --------------------------------------------------------

constexpr uint32_t MAGIC = 0x5a70317;
constexpr uint32_t NUMBERS_AHEAD = 64;
constexpr uint32_t NEVER = 0xFFFFFFFF;

// In RTC memory: it outlives deep sleep, but no change of batteries. `check` tells the two apart.
struct Memory {
  uint32_t magic;
  uint32_t next;         // the next counter
  uint32_t shaken_at_s;  // when a vibration was last told, or NEVER
  uint16_t bump;
  uint8_t sprung;
  uint8_t tamper_open;
  uint16_t check;
};

inline uint16_t check_of(const Memory &memory) {
  return crc16(reinterpret_cast<const uint8_t *>(&memory), offsetof(Memory, check));
}

inline bool remembers(const Memory &memory) { return memory.magic == MAGIC && memory.check == check_of(memory); }

// The next counter. `written_down` is the number in flash that no used one reaches; when it had to grow, the caller writes it to
// flash BEFORE the counter is sent, so that one change of batteries later no number comes a second time.
inline uint32_t take_counter(Memory *memory, uint32_t *written_down, bool *must_write) {
  if (!remembers(*memory)) {
    *memory = Memory{};
    memory->magic = MAGIC;
    memory->next = *written_down > 0 ? *written_down : 1;
    memory->shaken_at_s = NEVER;
  }
  *must_write = memory->next >= *written_down;
  if (*must_write)
    *written_down = memory->next + NUMBERS_AHEAD;
  const uint32_t counter = memory->next++;
  memory->check = check_of(*memory);
  return counter;
}

struct Inputs {
  bool sprung;
  bool tamper_open;
  bool shaken;     // the vibration switch woke us
  bool by_timer;   // it is time for a heartbeat
  uint32_t now_s;  // any clock that runs on in deep sleep
};

struct Decision {
  bool send;
  Why why;
  int times;  // how often the same frame goes out, at irregular distances
};

constexpr uint32_t SHAKEN_EVERY_S = 300;

// What to say on waking up; remembers what was seen. After a change of batteries the state before is not known: then a
// heartbeat says the state, and the other side knows whether that is news.
inline Decision decide(Memory *memory, const Inputs &now) {
  const bool known = remembers(*memory);
  Decision decision{false, Why::HEARTBEAT, 1};
  if (!known) {
    decision = {true, Why::HEARTBEAT, 3};
  } else if (now.sprung != (memory->sprung != 0)) {
    decision = {true, now.sprung ? Why::SPRUNG : Why::SET, 4};
  } else if (now.tamper_open != (memory->tamper_open != 0)) {
    decision = {true, Why::TAMPER, 3};
  } else if (now.shaken && (memory->shaken_at_s == NEVER || now.now_s - memory->shaken_at_s >= SHAKEN_EVERY_S)) {
    decision = {true, Why::VIBRATION, 3};
  } else if (now.by_timer) {
    decision = {true, Why::HEARTBEAT, 1};
  }
  if (known) {
    if (now.shaken)
      memory->bump = static_cast<uint16_t>((memory->bump + 1) % 65535);
    if (decision.send && decision.why == Why::VIBRATION)
      memory->shaken_at_s = now.now_s;
    memory->sprung = now.sprung ? 1 : 0;
    memory->tamper_open = now.tamper_open ? 1 : 0;
    memory->check = check_of(*memory);
  }
  return decision;
}

// A whole frame for a decision: takes the counter, and remembers the state that is said.
inline TrapFrame frame_of(Memory *memory, const Decision &decision, const Inputs &now, uint16_t address, uint16_t battery_mv,
                          uint32_t *written_down, bool *must_write) {
  TrapFrame frame;
  frame.why = decision.why;
  frame.sprung = now.sprung;
  frame.tamper_open = now.tamper_open;
  frame.address = address;
  frame.battery_mv = battery_mv;
  frame.counter = take_counter(memory, written_down, must_write);
  memory->sprung = now.sprung ? 1 : 0;
  memory->tamper_open = now.tamper_open ? 1 : 0;
  memory->check = check_of(*memory);
  frame.bump = memory->bump;
  return frame;
}

// --- The people counter's frame, and the direction of two beams -------------------------------------

inline std::vector<uint8_t> encode_count(uint32_t in, uint32_t out, uint16_t battery_mv) {
  std::vector<uint8_t> frame = {0xAA, 0x55, 0x01, static_cast<uint8_t>(battery_mv == 0 ? 1 : 0)};
  auto little = [&frame](uint32_t value, int bytes) {
    for (int i = 0; i < bytes; i++)
      frame.push_back(static_cast<uint8_t>(value >> (8 * i)));
  };
  little(in, 4);
  little(out, 4);
  little(battery_mv, 2);
  little(crc16(frame.data(), frame.size()), 2);
  return frame;
}

// Who breaks the outer beam first, then both, and leaves by the inner one came in; and the other way round. Whoever turns back,
// and whoever stands in the way for longer than 5 s, is not counted: better one too few than a door left open as a crowd.
class BeamPair {
 public:
  uint32_t in = 0, out = 0;

  void see(bool outer_broken, bool inner_broken, uint32_t now_ms) {
    if (!outer_broken && !inner_broken) {
      const bool passed = both_ && first_ != NONE && last_ != NONE && first_ != last_ && now_ms - since_ms_ <= LONGEST_MS;
      if (passed)
        (first_ == OUTER ? in : out)++;
      first_ = last_ = NONE;
      both_ = false;
      return;
    }
    if (first_ == NONE) {
      // Both within one look: nobody can say which was first.
      first_ = outer_broken && inner_broken ? BOTH : outer_broken ? OUTER : INNER;
      since_ms_ = now_ms;
    }
    both_ = both_ || (outer_broken && inner_broken);
    last_ = outer_broken && inner_broken ? NONE : outer_broken ? OUTER : INNER;
    if (first_ == BOTH)
      last_ = BOTH;
  }

 private:
  enum Which : uint8_t { NONE, OUTER, INNER, BOTH };
  static constexpr uint32_t LONGEST_MS = 5000;
  Which first_ = NONE, last_ = NONE;
  bool both_ = false;
  uint32_t since_ms_ = 0;
};

// The firmware's own pair.
inline BeamPair &beams() {
  static BeamPair pair;
  return pair;
}

}  // namespace satomori
