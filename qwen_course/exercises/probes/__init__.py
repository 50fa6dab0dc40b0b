"""What the checks look at, a module a lesson: functions that turn answers into data.

A probe calls a learner's function on cases, or takes a value apart. It may be run
where nothing right must be known, so it imports nothing of `judges`.
"""
