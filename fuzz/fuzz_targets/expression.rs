//! Any text is refused or read; what was read is shown in a form that is read back to the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_config::expression::Expression;

fuzz_target!(|text: &str| {
    if let Ok(expression) = text.parse::<Expression>() {
        let shown = expression.to_string();
        assert_eq!(shown.parse().as_ref(), Ok(&expression), "{shown}");
        assert_eq!(shown.parse::<Expression>().map(|again| again.to_string()).as_ref(), Ok(&shown));
    }
});
