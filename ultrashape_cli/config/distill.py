"""Settings of `train.objective=distill`; a section of `schema.Config`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillConfig:
    """A student that needs fewer passes than its teacher, the same network without adapters."""

    evaluations: int = 0
    """Euler steps in which the student goes the whole way; 0 learns the guided velocity at every t,
    so that any sampler takes one pass where it took two."""
    guidance_scale: float = 5.0
    """Guidance of the teacher; 0 where it has been distilled before, or is to have none."""
    teacher_steps: int = 2
    """Euler steps of the teacher in one of the student's."""
    grid_share: float = 0.2
    """Share of the samples whose t is one that `refine.steps` visits, where the student learns at
    every t."""
    rollout_share: float = 0.0
    """Share of the samples at which the student has arrived by its own steps, not along the path of
    the data."""
    huber: float = 0.01
    """Error per channel beyond which the loss grows with the error, no longer with its square."""

    @property
    def teacher_passes(self) -> float:
        """Passes without gradients for each one with them."""
        guided = 1 if self.guidance_scale in (0.0, 1.0) else 2
        if not self.evaluations:
            return guided
        return guided * self.teacher_steps + self.rollout_share * (self.evaluations - 1) / 2
