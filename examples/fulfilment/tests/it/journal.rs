//! The lines of consumer processes.

use fulfilment::journal::{End, Event, What};

#[test]
fn every_event_is_read_as_it_was_written() {
    let ends = [End::Acknowledge, End::Redeliver, End::SetAside].map(What::Ended);
    for what in [What::Began, What::Told].into_iter().chain(ends) {
        let event = Event {
            what,
            sequence: 17,
            delivery: 2,
        };
        assert_eq!(event.to_string().parse(), Ok(event));
    }
}
