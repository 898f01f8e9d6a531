// Lets a test speak with firmware_configs/esphome/satomori_frames.h: one command a line on stdin, one answer a line on stdout.
#include <iostream>
#include <sstream>

#include "satomori_frames.h"

using namespace satomori;

static std::vector<uint8_t> bytes_of(const std::string &hex) {
  std::vector<uint8_t> out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    out.push_back(static_cast<uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return out;
}

static std::string hex_of(const uint8_t *data, size_t length) {
  std::string out;
  char text[3];
  for (size_t i = 0; i < length; i++) {
    snprintf(text, sizeof text, "%02x", data[i]);
    out += text;
  }
  return out;
}

int main() {
  Memory memory{};
  uint32_t written_down = 0;
  BeamPair beams;
  std::string row;
  while (std::getline(std::cin, row)) {
    std::istringstream in(row);
    std::string what, hex, key_hex;
    in >> what;
    Key key{};
    if (what == "cmac") {
      in >> key_hex >> hex;
      const auto message = bytes_of(hex == "-" ? "" : hex);
      parse_key(key_hex, &key);
      std::cout << hex_of(cmac(key, message.data(), message.size()).data(), 16);
    } else if (what == "key") {
      in >> key_hex;
      std::cout << parse_key(key_hex, &key);
    } else if (what == "frame") {
      int why, sprung, tamper, battery, tilt, bait, bump, pir, address;
      uint32_t counter;
      in >> key_hex >> why >> sprung >> tamper >> address >> counter >> battery >> tilt >> bait >> bump >> pir;
      parse_key(key_hex, &key);
      TrapFrame frame;
      frame.why = static_cast<Why>(why);
      frame.sprung = sprung;
      frame.tamper_open = tamper;
      frame.address = static_cast<uint16_t>(address);
      frame.counter = counter;
      frame.battery_mv = static_cast<uint16_t>(battery);
      frame.tilt_half_deg = static_cast<int8_t>(tilt);
      frame.bait_percent = static_cast<uint8_t>(bait);
      frame.bump = static_cast<uint16_t>(bump);
      frame.pir_count = static_cast<uint16_t>(pir);
      const auto out = encode(frame, key);
      std::cout << hex_of(out.data(), out.size());
    } else if (what == "line") {
      float rssi, snr;
      in >> rssi >> snr >> hex;
      const std::string out = line(bytes_of(hex), rssi, snr);
      std::cout << out.substr(0, out.size() - (out.empty() ? 0 : 1));
    } else if (what == "wake") {  // one waking: why and how often, or nothing; then the counter and what went to flash
      Inputs now{};
      in >> now.sprung >> now.tamper_open >> now.shaken >> now.by_timer >> now.now_s;
      const Decision decision = decide(&memory, now);
      if (!decision.send) {
        std::cout << "quiet";
      } else {
        bool must_write = false;
        uint32_t in_flash = written_down;
        const TrapFrame frame = frame_of(&memory, decision, now, 1, 0, &in_flash, &must_write);
        if (must_write)
          written_down = in_flash;
        std::cout << static_cast<int>(frame.why) << ' ' << decision.times << ' ' << frame.counter << ' ' << frame.bump << ' ' << must_write;
      }
    } else if (what == "batteries") {  // changed: what was in RTC memory is noise now
      memset(&memory, 0xA5, sizeof memory);
    } else if (what == "count") {
      uint32_t inwards, outwards;
      int battery;
      in >> inwards >> outwards >> battery;
      const auto out = encode_count(inwards, outwards, static_cast<uint16_t>(battery));
      std::cout << hex_of(out.data(), out.size());
    } else if (what == "beams") {
      bool outer, inner;
      uint32_t now_ms;
      in >> outer >> inner >> now_ms;
      beams.see(outer, inner, now_ms);
      std::cout << beams.in << ' ' << beams.out;
    }
    std::cout << std::endl;
  }
}
