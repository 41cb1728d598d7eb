"""``df.llm`` and ``series.llm`` for Dask. Importing this package registers the accessors."""

from llm_magics.dataframes.dask.accessor import DaskFrameAccessor, DaskSeriesAccessor

__all__ = ["DaskFrameAccessor", "DaskSeriesAccessor"]
