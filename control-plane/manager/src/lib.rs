//! Runs the controllers: queues, clocks and retries.
