"""Checks that every method, metric and attack must pass, for unhot's own tests and for authors of new ones.

.. code-block:: python

    from unhot.testing import check_attack, check_method, check_metric

    check_method(MyMethod)
    check_metric("my_metric")
    check_attack("my-attack")

All run on a small problem, in seconds.
"""

from unhot.testing.attack import check_attack
from unhot.testing.method import check_method
from unhot.testing.metric import check_metric
from unhot.testing.toy import FORGOTTEN, Toy, toy_problem, toy_views

__all__ = ["FORGOTTEN", "Toy", "check_attack", "check_method", "check_metric", "toy_problem", "toy_views"]
