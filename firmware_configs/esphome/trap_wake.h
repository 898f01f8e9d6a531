// The trap's waking hours on an ESP32: what satomori_frames.h decides, with this chip's memory and clock. Only for trap.yaml.
#pragma once

#include <cmath>
#include <ctime>

#include "esp_attr.h"
#include "esp_sleep.h"
#include "esphome/core/preferences.h"
#include "satomori_frames.h"

namespace satomori {

// Outlives deep sleep, not a change of batteries.
static RTC_DATA_ATTR Memory trap_memory;

// One waking: the frame that is being said, how often it is still to be said, and how many there were.
struct Awake {
  std::vector<uint8_t> frame;
  int left = 0;
  int frames = 0;
};
static Awake awake;

constexpr int MOST_FRAMES = 3;  // a switch that chatters must not empty the battery in one night

// Whether there is something to say now; then it is in `awake`. False sends the trap to sleep.
inline bool something_to_say(const char *key_hex, uint16_t address, bool sprung, bool tamper_open, float battery_v) {
  if (awake.left > 0)
    return true;
  if (awake.frames == MOST_FRAMES)
    return false;
  Key key;
  if (!parse_key(key_hex, &key))
    return false;
  const auto cause = esp_sleep_get_wakeup_cause();
  Inputs now;
  now.sprung = sprung;
  now.tamper_open = tamper_open;
  // What woke us is news once; after that, only what changed while we spoke.
  now.shaken = awake.frames == 0 && cause == ESP_SLEEP_WAKEUP_EXT1;
  now.by_timer = awake.frames == 0 && cause == ESP_SLEEP_WAKEUP_TIMER;
  now.now_s = static_cast<uint32_t>(time(nullptr));
  const Decision decision = decide(&trap_memory, now);
  if (!decision.send)
    return false;

  auto in_flash = esphome::global_preferences->make_preference<uint32_t>(0x5a703170, true);
  uint32_t written_down = 0;
  in_flash.load(&written_down);
  const uint16_t battery_mv = std::isfinite(battery_v) && battery_v > 0 ? static_cast<uint16_t>(battery_v * 1000) : 0;
  bool must_write = false;
  const TrapFrame frame = frame_of(&trap_memory, decision, now, address, battery_mv, &written_down, &must_write);
  // Before the number is on the air. A flash that can't be written ends this trap: a number said twice would not be believed.
  if (must_write && (!in_flash.save(&written_down) || !esphome::global_preferences->sync()))
    return false;
  awake.frame = encode(frame, key);
  awake.left = decision.times;
  awake.frames++;
  return true;
}

}  // namespace satomori
