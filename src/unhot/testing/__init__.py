"""Checks that every unlearning method must pass, for unhot's own tests and for whoever writes one.

.. code-block:: python

    from unhot.testing import check_method

    check_method(MyMethod)

All on a small problem, in seconds.
"""

from unhot.testing.check import check_method
from unhot.testing.toy import FORGOTTEN, Toy, toy_problem

__all__ = ["FORGOTTEN", "Toy", "check_method", "toy_problem"]
