"""Settings of `ushape serve`; a section of `schema.Config`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """The service: where it listens, what it takes, how long it keeps it."""

    host: str = "127.0.0.1"
    """Address to listen on; any but this machine's own needs a token."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    data: str = "serve"
    """Folder of queue, uploads and results; on a disk of this machine, not on a network share."""
    workers: int = 0
    """Worker processes; 0 takes one per card, or one on the CPU."""
    max_models: int = 1
    """Models that a worker keeps loaded; the one unused for longest goes first."""
    max_mesh_mb: float = 256.0
    """Largest mesh file that is taken."""
    max_image_mb: float = 32.0
    """Largest image file that is taken."""
    max_images: int = 8
    """Most images of one request; each becomes a job of its own."""
    max_megapixels: float = 64.0
    """Most pixels of an image."""
    max_faces: int = 4_000_000
    """Most faces of a mesh."""
    max_queued: int = 1000
    """Jobs waiting or running, beyond which new ones are told to come later."""
    max_queued_per_token: int = 100
    """The same for the jobs of one token."""
    submits_per_minute: float = 60.0
    """Submissions of one token, on average; bursts may be as large."""
    requests_per_minute: float = 6000.0
    """Other requests of one token, on average."""
    uploads_at_once: int = 8
    """Uploads read at the same time; more wait unread."""
    upload_idle_s: float = 30.0
    """Silence after which an upload is given up."""
    stuck_s: float = 180.0
    """Time after which a worker that neither computes nor says anything is killed."""
    keep_days: float = 30.0
    """Days that results are kept; 0 keeps them until `max_disk_gb`."""
    max_disk_gb: float = 100.0
    """Space of all jobs' files, beyond which the oldest finished ones go; 0 is no limit."""
    min_free_gb: float = 1.0
    """Free space of the disk, below which no new job is taken."""
    lease_s: float = 30.0
    """Silence of a worker after which its job goes to another."""
    heartbeat_s: float = 5.0
    """Seconds between two signs of life of a worker."""
    attempts: int = 3
    """Workers a job may take down before it counts as failed."""
    job_timeout_s: float = 3600.0
    """Longest time of one attempt."""
    cancel_s: float = 20.0
    """Time that a cancelled job has to stop before its worker is killed."""
    grace_s: float = 60.0
    """Time that running jobs have to end when the service is stopped, before they go back to the
    queue."""
    parse_timeout_s: float = 120.0
    """Time that reading an uploaded mesh may take."""
    parse_memory_gib: float = 8.0
    """Memory that reading an uploaded mesh may take."""
    webhook_tries: int = 5
    """Times that a webhook is called until it answers."""
    webhook_private: bool = False
    """Call webhooks at private addresses, too: those of this machine and network."""
