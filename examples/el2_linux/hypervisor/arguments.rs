//! What the hypervisor was told on QEMU's command line.

use heapless::String;
use semihosting::experimental::env;

use super::{console::die, phase::Phase, tracking::Controller};

/// The words of `-semihosting-config arg=…`, after the program's name.
pub struct Arguments {
    /// `controller=on|off|fine`.
    pub controller: Controller,
    /// `out=DIR`: where the report and the trace go.
    pub out: String<256>,
    /// `migrate=PHASE`: during which phase the guest's memory is migrated.
    pub migrate: Option<Phase>,
}

impl Arguments {
    /// Asks for them. A word that is not known is an error.
    pub fn read() -> Self {
        let mut arguments = Self {
            controller: Controller::On,
            out: String::new(),
            migrate: None,
        };
        let Ok(words) = env::args::<512>() else {
            die(format_args!("the arguments cannot be read"));
        };
        for word in (&words).skip(1) {
            let Ok(word) = word else {
                die(format_args!("an argument is not UTF-8"));
            };
            if !arguments.take(word) {
                die(format_args!("the argument {word} is not known"));
            }
        }
        if arguments.out.is_empty() {
            die(format_args!("there is no argument out=DIR"));
        }
        arguments
    }

    fn take(&mut self, word: &str) -> bool {
        match word.split_once('=') {
            Some(("controller", name)) => Controller::named(name).is_some_and(|controller| {
                self.controller = controller;
                true
            }),
            Some(("out", folder)) => {
                self.out.clear();
                self.out.push_str(folder).is_ok()
            }
            Some(("migrate", name)) => {
                self.migrate = Some(Phase::named(name));
                true
            }
            _ => false,
        }
    }
}
