#![no_main]

use support::fuzz::{MqttStream, run};

libfuzzer_sys::fuzz_target!(|data: &[u8]| run::<MqttStream>(data));
