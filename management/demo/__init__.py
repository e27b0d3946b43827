"""`manage.py demo`: a whole flash sale on real servers, from the countdown to the last row in PostgreSQL.

`day.py` is the order of events; `plan.py` says who clicks what when; `crowd.py` is the client process
that clicks; `report.py` holds what came of it against what was promised. Nothing is imported here,
because the crowd's process must stay small: two cores are shared by the buyers and the shop.
"""
