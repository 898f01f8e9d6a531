"""From verdicts to alerts to messages: life cycle and routes. Pure: alerts in, alerts out, `now` given."""
