"""When the monitor raises an alert, and whom it tells."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class AlertConfig:
    """Limits of the monitor's rules. `monitoring.alerts` is the table of rules."""

    off: tuple[str, ...] = ()
    """Rules that are not looked at."""
    loss_spike: float = 2.0
    """Mean of the last 5 logged losses over the median of the 200 before."""
    no_step_minutes: float = 15.0
    """Time without a step."""
    gpu_utilisation: float = 70.0
    """Per cent below which a GPU of the run counts as idle."""
    gpu_minutes: float = 10.0
    """How long a GPU must be idle, and at every look."""
    memory: float = 0.95
    """Used share of a GPU's or the host's memory."""
    temperature: float = 85.0
    """Degrees Celsius of a GPU."""
    disk_free: float = 0.2
    """Share of the run's disk that should be free."""
    checkpoint_intervals: float = 1.5
    """Steps since the newest checkpoint, in `train.save_every_steps`."""
    data_wait: float = 0.1
    """Share of a step spent waiting for data."""
    command: str = ""
    """Program that is run for every alert; the alert is JSON on its standard input and in
    variables USHAPE_ALERT, USHAPE_ALERT_RULE, USHAPE_ALERT_STATE and USHAPE_ALERT_RUN."""
    webhook: str = ""
    """Address that gets every alert as a Slack-compatible JSON object, `{"text": ...}`."""
    wandb: bool = False
    """Send every alert through Weights & Biases, too."""
