"""What every section of the configuration is built on: no unknown keys, no silent conversions.

Each key says what may become of it when a run is resumed: `Annotated[Count, SAME]`. A key that holds a
section of its own leaves that to the section's keys.
"""

from enum import Enum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A frozen group of keys; the text under a key says what it means."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class OnResume(Enum):
    """What may become of a key when a run is resumed."""

    SAME = "it decides what is in a row, or which row it is"
    MAY_GROW = "more of it adds rows; None is all there are"
    FREE = "it changes how the work is done"


SAME, MAY_GROW, FREE = OnResume

Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FailedShare = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
