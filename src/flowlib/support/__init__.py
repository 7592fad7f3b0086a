"""Supports: the set that a bijection maps from or to, or on which a density lives.

A support tests membership and draws test points. When things are composed only its `kind` is
compared, since the ends of an interval may be parameters; membership is tested at run time.
"""

from flowlib.support._composed import Between as Between
from flowlib.support._composed import Joined as Joined
from flowlib.support._composed import OneTurn as OneTurn
from flowlib.support._composed import Repeated as Repeated
from flowlib.support._composed import Reshaped as Reshaped
from flowlib.support._composed import Scattered as Scattered
from flowlib.support._composed import Subset as Subset
from flowlib.support._composed import Whole as Whole
from flowlib.support._relations import fills as fills
from flowlib.support._relations import fits as fits
from flowlib.support._relations import image as image
from flowlib.support._relations import is_elementwise as is_elementwise
from flowlib.support._relations import join as join
from flowlib.support._relations import reshaped as reshaped
from flowlib.support._sets import Box as Box
from flowlib.support._sets import Circle as Circle
from flowlib.support._sets import Integers as Integers
from flowlib.support._sets import Interval as Interval
from flowlib.support._sets import Positive as Positive
from flowlib.support._sets import Real as Real
from flowlib.support._support import Support as Support
from flowlib.support._vectors import Increasing as Increasing
from flowlib.support._vectors import Simplex as Simplex
from flowlib.support._vectors import Sphere as Sphere
