"""An embedding service that speaks OpenAI's protocol: ``minisbert serve``.

``app`` has the routes and the answers, ``batching`` joins waiting texts into packed strips, ``limits`` says who may
ask, how much, and how long a client may take.
"""
