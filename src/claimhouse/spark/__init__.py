"""The lake in Spark: a session with Delta, the tables as temporary views, and their change logs as DataFrames.

    import claimhouse.spark

    spark = claimhouse.spark.session()
    claimhouse.spark.register(spark, "./lake")                      # every table, as of the newest flush
    spark.table("claim").show()
    claimhouse.spark.log(spark, "./lake", "claim").show()           # every version of every row

Open-source Spark has no client for Glue on the registries, hence temporary views. pyspark itself is imported only where
it is needed: it comes with the extra `stack`.
"""

from claimhouse.spark.local import session
from claimhouse.spark.views import flushed, log, register

__all__ = ["flushed", "log", "register", "session"]
